"""Endpoints about subjects: make them from photos, look at them, delete them and take that back."""

from typing import TYPE_CHECKING

import gradio as gr

from dora_diffusion.studio.subjects import Subject
from dora_diffusion.studio.ui.endpoints.answers import SubjectDetails, photo
from dora_diffusion.studio.ui.endpoints.uploads import received

if TYPE_CHECKING:
    from dora_diffusion.studio.studio import Studio


class SubjectEndpoints:
    """Who is taught."""

    def __init__(self, studio: "Studio"):
        self.studio = studio
        self.at_once = (
            self.list_subjects,
            self.subject,
            self.create_subject,
            self.samples,
            self.create_sample,
            self.delete_subject,
            self.restore_subject,
        )
        self.in_line = ()

    def list_subjects(self) -> list[Subject]:
        """The subjects, the one that was worked on last first.

        Returns:
            id, name, class_noun, trigger, base and times (UTC seconds) of each.
        """
        return self.studio.subjects.list()

    def subject(self, subject: str) -> SubjectDetails:
        """Everything about one subject.

        Args:
            subject: its id, for example rex-1.

        Returns:
            The subject, the words a prompt calls it by, its photos with what is to be said of each, and its trainings.
        """
        found = self.studio.subjects.get(subject)
        return {
            "subject": found,
            "words": found.words,
            "is_trained": self.studio.subjects.adapter(subject) is not None,
            "photos": [photo(note) for note in self.studio.subjects.photos(subject)],
            "jobs": self.studio.jobs.of_subject(subject),
        }

    def create_subject(
        self, files: list[gr.FileData], class_noun: str, name: str = "", trigger: str = "", base: str = "toybox"
    ) -> Subject:
        """Make a subject from photos of it.

        Args:
            files: 3 to 20 do best; handle_file(path) of gradio_client, or data:image/jpeg;base64,…; no web addresses.
            class_noun: what it is, in one or two words: dog, teapot, toy robot.
            name: what you call it; left empty, the class noun and a number.
            trigger: the rare word that will stand for it in prompts; left empty, sks.
            base: the base model to teach, a name that bases lists.

        Returns:
            The new subject; its id is what the other endpoints ask for.
        """
        with received(files, self.studio.home.tmp) as photos:
            return self.studio.subjects.create(photos, name, class_noun, trigger, base)

    def samples(self) -> list[str]:
        """The sample subjects that come with the studio.

        Returns:
            Their names, for create_sample.
        """
        return self.studio.subjects.samples()

    def create_sample(self, sample: str) -> Subject:
        """Make a subject from one of the samples' photos.

        Args:
            sample: a name that samples lists.

        Returns:
            The new subject.
        """
        return self.studio.subjects.create_from_sample(sample)

    def delete_subject(self, subject: str, name: str) -> str:
        """Move a subject to the trash, where it stays for 7 days.

        Args:
            subject: its id.
            name: its name, typed once more, so that no other one is deleted by mistake.

        Returns:
            What was done.
        """
        self.studio.subjects.delete(subject, name)
        return f"{subject} is in the trash for 7 days; restore_subject takes it out."

    def restore_subject(self, subject: str) -> Subject:
        """Take a subject out of the trash.

        Args:
            subject: its id.

        Returns:
            The subject.
        """
        return self.studio.subjects.restore(subject)
