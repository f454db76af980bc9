"""The commands of `python -m jaxzoo`, each the function of its file's name. They import `convert` where they use it."""
