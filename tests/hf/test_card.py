"""Model cards, and uploads to a stand-in of the Hub's HTTP interface."""

import base64
import json
import re
import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from shutil import copytree
from threading import Thread

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from mmgpt.hf.card import write_card
from tests.hf.conftest import CONVERTERS


@pytest.fixture
def folder(merged, tmp_path):
    """A copy of the exported folder."""
    return copytree(merged, tmp_path / "folder")


def test_the_card_has_metadata_and_scores(folder, tmp_path):
    metrics = {"accuracy/colour": 81.5, "accuracy/questions/colour": 200, "accuracy/mean": 81.5, "worst": "colour"}
    (tmp_path / "result.json").write_text(json.dumps({"metrics": metrics}))
    write_card(folder, "someone/tiny", [tmp_path / "result.json"])
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-text-to-text"
    assert card.data.library_name == "transformers"
    scores = {result.dataset_name: (result.metric_type, result.metric_value) for result in card.data.eval_results}
    assert scores == {"colour": ("accuracy", 81.5), "mean": ("accuracy", 81.5)}
    assert "owner/name" not in card.text
    assert 'from_pretrained("someone/tiny"' in card.text
    assert "| language model | language | not in its folder |" in card.text
    assert "colour, shape" in card.text
    assert '"question": "### Instruction:' in card.text
    config = json.loads(re.search(r"```json\n(.*?)```", card.text, re.DOTALL)[1])
    assert config["type"] == "LoRAModel"
    assert config["module"]["image_attention"] == "latest"


def test_the_snippets_of_the_card_run(folder, conversations, tmp_path, monkeypatch, capsys):
    text = ModelCard.load(folder / "README.md").text
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 3
    messages, _ = conversations
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").symlink_to(folder)
    (tmp_path / "photo.jpg").symlink_to(messages[1][0]["content"][0]["path"])
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
    one, other = capsys.readouterr().out.splitlines()
    assert one.strip() == other.strip() != ""


def test_what_has_no_card_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="is not a folder that export --format transformers wrote"):
        write_card(tmp_path, "someone/tiny")
    for name in ("tiny", "a/b/c", "/tiny"):
        with pytest.raises(ValueError, match="as owner/name"):
            write_card(folder, name)
    with pytest.raises(FileNotFoundError):
        write_card(folder, "someone/tiny", [tmp_path / "result.json"])


@pytest.fixture
def hub(monkeypatch):
    """A stand-in of the Hub: the requests that it got, (method, path, body)."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append((self.path, body))
            answer = {"url": f"{address}/someone/tiny", "name": "someone/tiny", "errors": [], "warnings": []}
            if "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                answer = {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
            if "/commit/" in self.path:
                answer = {"commitUrl": f"{address}/someone/tiny/commit/abc", "commitOid": "abc", "success": True}
            self._answer(200, answer)

        def do_GET(self):
            self._answer(404, {"error": "not found"})

        def _answer(self, status, content):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    yield requests
    server.shutdown()
    server.server_close()


def test_push_uploads_every_file_and_names_the_base_of_the_adapter(adapted, hub, tmp_path, monkeypatch, capsys):
    folder = copytree(adapted, tmp_path / "folder")
    (folder / "adapter").mkdir()
    shutil.copy(folder / "adapter_config.json", folder / "adapter")
    monkeypatch.syspath_prepend(CONVERTERS)
    import weights

    monkeypatch.setattr(sys, "argv", ["weights.py", "push", str(folder), "someone/tiny", "--private"])
    weights.main()
    assert "pushed: http://127.0.0.1" in capsys.readouterr().out
    [created] = [json.loads(body) for path, body in hub if path == "/api/repos/create"]
    # The last setting is named differently by the versions of huggingface_hub.
    assert created["name"] == "tiny"
    assert created["organization"] == "someone"
    assert "private" in str(created)
    [commit] = [body for path, body in hub if "/commit/" in path]
    entries = [json.loads(line) for line in commit.splitlines()]
    files = {e["value"]["path"]: base64.b64decode(e["value"]["content"]) for e in entries if e["key"] == "file"}
    assert files == {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert {"README.md", "config.json", "model.safetensors", "modeling_mmgpt.py"} < files.keys()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "someone/tiny"
    assert json.loads(files["adapter/adapter_config.json"])["base_model_name_or_path"] == "someone/tiny"
