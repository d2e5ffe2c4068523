"""Every flag of diffusers' two DreamBooth LoRA scripts (2026), and the two crop flags of an older SDXL script."""

BOTH = """
pretrained_model_name_or_path revision variant instance_data_dir class_data_dir instance_prompt class_prompt
validation_prompt num_validation_images validation_epochs with_prior_preservation prior_loss_weight num_class_images
output_dir seed resolution center_crop train_text_encoder train_batch_size sample_batch_size num_train_epochs
max_train_steps checkpointing_steps checkpoints_total_limit resume_from_checkpoint gradient_accumulation_steps
gradient_checkpointing learning_rate scale_lr lr_scheduler lr_warmup_steps lr_num_cycles lr_power
dataloader_num_workers use_8bit_adam adam_beta1 adam_beta2 adam_weight_decay adam_epsilon max_grad_norm push_to_hub
hub_token hub_model_id logging_dir allow_tf32 report_to mixed_precision prior_generation_precision local_rank
enable_xformers_memory_efficient_attention rank image_interpolation_mode
"""
SD = """
tokenizer_name pre_compute_text_embeddings tokenizer_max_length text_encoder_use_attention_mask validation_images
class_labels_conditioning
"""
SDXL = """
pretrained_vae_model_name_or_path dataset_name dataset_config_name cache_dir image_column caption_column repeats
do_edm_style_training output_kohya_format random_flip text_encoder_lr snr_gamma optimizer prodigy_beta3 prodigy_decouple
adam_weight_decay_text_encoder prodigy_use_bias_correction prodigy_safeguard_warmup lora_dropout use_dora
crops_coords_top_left_h crops_coords_top_left_w
"""
ALL = [f"--{name}" for name in f"{BOTH} {SD} {SDXL}".split()]
