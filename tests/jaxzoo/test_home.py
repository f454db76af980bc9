"""Commands run without a home folder, or with one that cannot be written."""

import os
import pwd

import pytest

import convert
from jaxzoo import UsageError, cache, home


@pytest.fixture
def settings(monkeypatch):
    """What is set of JAX's configuration."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    found = {}
    monkeypatch.setattr(cache.jax.config, "update", found.__setitem__)
    return found


def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")


def test_compiled_programs_are_kept_in_the_home_folder(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    cache.keep_compiled_programs()
    assert settings["jax_compilation_cache_dir"].startswith(f"{tmp_path}/.cache/jaxzoo/compiled-")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert home.cache_folder("x") == tmp_path / "elsewhere" / "jaxzoo" / "x"


def test_nothing_is_kept_without_a_home_folder(settings, monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    cache.keep_compiled_programs()
    assert settings == {}
    assert home.expanded(["--out=~/run"]) == ["--out=~/run"]


def test_downloads_are_refused_without_a_home_folder_rather_than_kept_in_one_called_tilde(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    for name in ("XDG_CACHE_HOME", "TORCH_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", os.path.expanduser("~/.cache/huggingface/hub"))
    for model, variable in (("resnet18", "TORCH_HOME"), ("mobilevit_xs", "HF_HOME")):
        with pytest.raises(UsageError, match=f"no home folder to keep downloads in; set {variable} to a folder"):
            convert.load(model, "DEFAULT")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("trouble", ["made", "written"])
def test_nothing_is_kept_where_the_home_folder_cannot_be(settings, monkeypatch, tmp_path, trouble):
    if trouble == "made":
        (tmp_path / "file").touch()
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    else:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    cache.keep_compiled_programs()
    assert settings == {}
