"""Children that meet untrusted data do not see the secrets of this process."""

from __future__ import annotations

import pytest

from mmrl.modalities.child_environment import hidden_names, without_secrets

SECRETS = {
    "WANDB_API_KEY": "1",
    "HF_TOKEN": "1",
    "HUGGING_FACE_HUB_TOKEN": "1",
    "AWS_SECRET_ACCESS_KEY": "1",
    "AWS_ACCESS_KEY_ID": "1",
    "MMRL_SERVER_KEY": "1",
    "GOOGLE_APPLICATION_CREDENTIALS": "/a.json",
    "DB_PASSWORD": "1",
    "MYSQL_PASSWD": "1",
    "DATABASE_URL": "postgres://me:word@host/base",
    "openai_apikey": "1",
}
OTHERS = {
    "PATH": "/bin",
    "TOKENIZERS_PARALLELISM": "false",
    "KEYBOARD": "us",
    "AUTHOR": "me",
    "https_proxy": "http://me:word@proxy:3128",
    "PAGE": "https://host/a",
}


def test_secrets_are_hidden_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, **OTHERS}.items():
        monkeypatch.setenv(name, value)
    seen = without_secrets(["HF_TOKEN"])
    assert seen.keys() & SECRETS.keys() == {"HF_TOKEN"}
    assert seen.keys() >= OTHERS.keys()
    assert hidden_names(["HF_TOKEN"]) >= SECRETS.keys() - {"HF_TOKEN"}
