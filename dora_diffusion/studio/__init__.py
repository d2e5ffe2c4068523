"""The studio: subjects, training jobs and pictures on disk. Only ``studio.ui`` knows the web page's library."""
