"""tools/quickstart.sh, with a stand-in for Python that does nothing."""

import shutil

from tests.tools.test_setup_env import TOOLS, project, run_bash  # noqa: F401 (fixture)


def test_it_ends_with_how_to_chat_about_the_first_of_many_held_out_pictures(project):  # noqa: F811 (the fixture)
    shutil.copy(TOOLS / "quickstart.sh", project / "tools")
    pictures = project / "data" / "tiny" / "images" / "heldout"
    pictures.mkdir(parents=True)
    # More names than a pipe holds: a reader that takes the first one and leaves would end the script with SIGPIPE.
    for number in range(3000):
        (pictures / f"{number:0100}.png").touch()
    _, shown = run_bash(project, f"bash '{project}/tools/quickstart.sh'")
    terminal, page = shown.splitlines()[-2:]
    assert "demo/chat.py " in terminal
    assert f"--image data/tiny/images/heldout/{0:0100}.png" in terminal
    assert "demo/gradio_demo.py " in page
