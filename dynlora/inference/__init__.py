"""A trained model that answers: loaded, examined, served to pages by a child process."""
