"""What every page of a report has to be, whatever it shows."""

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}
NASTY = "<script>alert('x')</script> & \"quoted\" $x_1$ <b>"


class Outline(HTMLParser):
    """Collects identifiers, references and text, and checks that tags are closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.identifiers, self.references, self.resources, self.text = [], [], [], [], []
        self.tags = set()
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name == "id":
                self.identifiers.append(value)
            elif name == "aria-labelledby":
                self.references += value.split()
            elif name in ("href", "xlink:href", "src", "srcset", "data", "action", "poster"):
                if value.startswith("#"):
                    self.references.append(value[1:])
                elif tag != "a":
                    self.resources.append(value)
            self.references += re.findall(r"url\(#([^)]*)\)", value or "")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check_page(page):
    """Assert that a page is well formed and self-contained, and shows no `nan`."""
    outline = Outline(page)
    assert len(set(outline.identifiers)) == len(outline.identifiers)
    assert set(outline.references) <= set(outline.identifiers)
    assert outline.resources == ["data:,"]
    assert not outline.tags & {"script", "img", "iframe", "object", "embed"}
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "nan" not in re.findall(r"[a-z]+", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<!doctype html><meta charset="utf-8"><body>{frames}<script>
onload = () => {{
  const frames = [...document.querySelectorAll("iframe")].map(frame => frame.contentDocument.documentElement);
  const widths = frames.map(root => root.scrollWidth + "/" + root.clientWidth);
  document.body.innerHTML = "<p>widths " + widths.join(" ") + " end</p>";
}};
</script>"""


def widths_of(pages, folder, widths=(320, 360, 700, 960)):
    """Lay out each page at each width of the window, and return what it takes up beside what it has."""
    frames = []
    for width in widths:
        for page in pages:
            page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
            style = f"width: {width}px; height: 600px; border: 0"
            frames.append(f'<iframe style="{style}" srcdoc="{html.escape(page)}"></iframe>')
    probe = folder / "probe.html"
    probe.write_text(PROBE.format(frames="".join(frames)), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--dump-dom")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    command = [BROWSER, *options, *quiet, f"--user-data-dir={folder / 'profile'}", probe.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    pairs = re.search(r"widths (.*?) end", found)[1].split()
    assert len(pairs) == len(frames)
    return [tuple(map(int, pair.split("/"))) for pair in pairs]
