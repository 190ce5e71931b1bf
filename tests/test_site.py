"""The site, built from the committed suites, read by a program and by a browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from mixbench.leaderboard.overall import overall
from mixbench.leaderboard.table import leaderboards
from mixbench.records.schema import Record
from mixbench.site import charts
from mixbench.site.pages import Site

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(path.parent for path in (ROOT / "leaderboards").glob("*/suite.toml"))
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
# Whom the browser asks by itself, whatever page it shows.
ITS_OWN = {
    *("clients2.google.com", "accounts.google.com", "update.googleapis.com"),
    *("redirector.gvt1.com", "optimizationguide-pa.googleapis.com", "www.google.com"),
}
in_browser = pytest.mark.skipif(
    BROWSER is None, reason="Chromium is not installed: apt-get install chromium"
)
MakeRecord = Callable[..., Record]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    assert all(path.exists() for path in Site(FOLDERS).build(out))
    return out


class Links(HTMLParser):
    """Collects what a page refers to, and the anchors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.anchors: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [v for k in ("href", "src") if (v := given.get(k))]
        self.anchors |= {v for v in (given.get("id"),) if v}
        if tag not in {"meta", "link", "img", "input", "br", "wbr", "path", "use"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"path", "use", "meta"}:
            assert self.open.pop() == tag


def links_of(path: Path) -> Links:
    found = Links()
    found.feed(path.read_text())
    assert found.open == [], f"{path} leaves {found.open} open"
    return found


def test_every_link_leads_to_a_page_of_the_site(site: Path) -> None:
    pages = {path: links_of(path) for path in site.rglob("*.html")}

    assert len(pages) > 60
    for page, links in pages.items():
        for link in links.found:
            place, _, anchor = unquote(link).partition("#")
            if link.startswith(("data:", "#")):  # within the page; charts refer to their shapes
                continue
            if link.startswith(("https://arxiv.org/abs/", "https://github.com/")):
                continue  # the sources that a method's header names
            assert not re.match(r"[a-z]+:|//", place), f"{page} refers to {link}"
            target = (page.parent / place.partition("?")[0]).resolve() if place else page
            assert target.is_file(), f"{page} refers to {link}"
            assert not anchor or anchor in pages[target].anchors


def test_every_suite_method_task_and_record_has_a_page(site: Path) -> None:
    records = [path for folder in FOLDERS for path in folder.glob("records/*/*/*.json")]
    number = len({path.read_bytes() for path in records})  # a run may answer several suites

    assert {path.stem for path in (site / "suites").iterdir()} == {f.name for f in FOLDERS}
    assert len([*(site / "records").glob("*.html")]) == number
    page = (site / "methods/guided_patchmix.html").read_text()
    assert "Evolving Image Compositions" in page
    assert "previews/guided_patchmix.webp" in page
    assert (site / "previews/guided_patchmix.webp").stat().st_size > 5000
    assert "Number of cells along each axis" in page
    assert "Where it helps" in page
    assert "Train on clean images, random compositions and compositions found by a search." in page
    assert 'href="https://arxiv.org/abs/2106.09011"' in page
    assert "Food-101" in (site / "tasks/food101.html").read_text()


def test_a_suite_without_records_shows_what_was_published(site: Path) -> None:
    page = (site / "suites/paper_table6.html").read_text()

    assert '<span class="changed"> [grid=2]</span>' in page
    assert "93.78" in page


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder, digits = tmp_path / "evil", ROOT / "leaderboards/digits"
    source = next((digits / "records/digits/mixup").glob("*.s0.*"))
    path = folder / source.relative_to(digits)
    path.parent.mkdir(parents=True)
    suite = (digits / "suite.toml").read_text().partition("\n")[2].partition("\n")[2]
    (folder / "suite.toml").write_text(f'title = "{evil}"\nquestion = "{evil}"\n{suite}')
    failed: dict[str, object] = {
        "status": "failed",
        "reason": evil,
        "command": [evil],
        "cost": None,
    }
    failed |= {name: [] for name in ("metrics", "artifacts", "stages", "references")}
    content = {**json.loads(source.read_text()), **failed}
    path.write_text(Record.model_validate_json(json.dumps(content)).written)

    pages = [p for p in Site([folder]).build(tmp_path / "out") if p.suffix == ".html"]

    assert not any(evil in page.read_text() for page in pages)
    assert sum("&lt;script&gt;" in page.read_text() for page in pages) >= 3


def test_the_critical_difference_is_drawn_of_tasks_that_agree(make_record: MakeRecord) -> None:
    records = []
    for number in range(6):
        for place, method in enumerate(("none", "mixup", "cutmix", "other")):
            swapped = place if number else 3 - place
            record = make_record(method, 0, 50.0 + number + swapped)
            task = record.task.model_copy(update={"name": f"task_{number}"})
            data = record.data.model_copy(update={"name": f"set_{number}"})
            records.append(record.model_copy(update={"task": task, "data": data}))
    found = overall(leaderboards(records))
    assert found is not None
    assert found.p is not None

    drawn = charts.critical_difference(found)

    assert drawn.startswith("<svg ")
    assert all(method in drawn for method in ("none", "mixup", "cutmix", "other"))
    assert "var(--ink)" in drawn


def browse(page: Path, script: str, tmp_path: Path, *options: str) -> tuple[str, str, str]:
    """Open a page in a browser, run a script in it; return its DOM, its console, its requests."""
    copy = page.with_name("tested.html")
    text = page.read_text().replace("</body>", f"<script defer>{script}</script></body>")
    copy.write_text(text)
    log = tmp_path / "net.json"
    done = subprocess.run(
        [
            *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
            *("--enable-logging=stderr", "--virtual-time-budget=3000", f"--log-net-log={log}"),
            *(f"--user-data-dir={tmp_path / 'profile'}", *options, copy.as_uri()),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    copy.unlink()
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    urls = re.findall(r'"url":"(https?://[^"]+)"', log.read_text()) if log.exists() else []
    asked = [url for url in urls if urlsplit(url).hostname not in ITS_OWN]
    return done.stdout, console, "\n".join(asked)


SORT = """
addEventListener("load", () => {
  const table = document.querySelectorAll("table.sortable")[TABLE];
  const names = () =>
    [...table.tBodies[0].rows].map((row) => row.querySelector("th").textContent.trim());
  const buttons = [...table.tHead.querySelectorAll("button")];
  const by = (head) => buttons.find((button) => button.textContent === head).click();
  const found = {first: names()};
  by("method"); found.method = names();
  for (const head of HEADS) by(head);
  found.sorted = names();
  const input = document.querySelector(".filter input");
  input.value = "cut"; input.dispatchEvent(new Event("input"));
  found.filtered = [...table.tBodies[0].rows].filter((row) => !row.hidden).length;
  document.body.dataset.found = JSON.stringify(found);
});
"""


@pytest.mark.full
@in_browser
def test_tables_are_sorted_and_filtered_in_a_browser(site: Path, tmp_path: Path) -> None:
    page = site / "suites/digits.html"
    tables = len(re.findall("<table class=.sortable", page.read_text()))
    results, costs = (
        sorted_in_browser(page, table, heads, tmp_path)
        for table, heads in ((0, ["vs none (95% CI)"]), (tables - 1, ["time (min)"] * 2))
    )

    assert results["method"] == sorted(results["first"])
    assert results["method"] != results["first"]
    assert results["sorted"][0] == "random_patchmix"
    assert results["sorted"][-1] == "none"  # an empty cell stays last
    assert results["filtered"] == 2  # cutmix and cutmix_16
    assert costs["sorted"][0] == "guided_patchmix"


def sorted_in_browser(page: Path, table: int, heads: list[str], tmp_path: Path) -> dict[str, Any]:
    """Return the names of a table's rows before and after clicks on its headings."""
    script = SORT.replace("TABLE", str(table)).replace("HEADS", json.dumps(heads))
    found, console, requests = found_by(page, script, tmp_path)
    assert (console, requests) == ("", "")
    return found


def found_by(
    page: Path, script: str, tmp_path: Path, *options: str
) -> tuple[dict[str, Any], str, str]:
    """Return what a script noted in the page, its console and its requests."""
    dom, console, requests = browse(page, script, tmp_path, *options)
    text = re.search(r'data-found="([^"]*)"', dom)
    assert text, dom[-500:]
    return json.loads(unescape(text[1])), console, requests


USE = """
addEventListener("load", () => {
  const input = document.querySelector(".search input");
  input.value = "fmix"; input.dispatchEvent(new Event("input"));
  const found = {first: document.querySelector(".search li a").getAttribute("href")};
  const form = document.querySelector(".compare");
  if (form) {
    const row = () => [...document.querySelectorAll(".compared td")].map((c) => c.textContent);
    form.first.value = "cutmix"; form.second.value = "mixup";
    form.first.dispatchEvent(new Event("change"));
    found.forwards = row();
    form.first.value = "mixup"; form.second.value = "cutmix";
    form.first.dispatchEvent(new Event("change"));
    found.backwards = row();
  }
  document.body.dataset.found = JSON.stringify(found);
});
"""


@pytest.mark.full
@in_browser
@pytest.mark.parametrize("page", ["compare", "suites/digits"])
def test_search_and_comparison_work_in_a_browser(site: Path, page: str, tmp_path: Path) -> None:
    found, console, requests = found_by(site / f"{page}.html", USE, tmp_path)

    assert (console, requests) == ("", "")
    assert found["first"].endswith("methods/fmix.html")
    if page == "compare":
        first, second, difference, seeds = found["forwards"][:4]
        assert found["backwards"][:2] == [second, first]
        assert seeds == "5"
        low, high = (float(v) for v in re.findall(r"[+-][\d.]+", difference)[1:])
        turned = re.findall(r"[+-][\d.]+", found["backwards"][2])
        assert [-high, -low] == [float(v) for v in turned[1:]]


@pytest.mark.full
@in_browser
def test_the_browser_reports_errors_and_requests_at_all(site: Path, tmp_path: Path) -> None:
    """Else the last test could not fail."""
    script = 'console.error("noticed"); fetch("http://127.0.0.1:9/outside").catch(() => 0);'

    _, console, requests = browse(site / "index.html", script, tmp_path)

    assert "noticed" in console
    assert "http://127.0.0.1:9/outside" in requests


@pytest.mark.full
@in_browser
@pytest.mark.parametrize("page", ["index", "suites/digits", "methods/mixup", "tasks/digits"])
def test_pages_fit_a_phone(site: Path, tmp_path: Path, page: str) -> None:
    script = (
        'addEventListener("load", () => { document.body.dataset.wide ='
        " `${document.documentElement.scrollWidth} ${innerWidth}`; });"
    )

    dom, _, _ = browse(site / f"{page}.html", script, tmp_path, "--window-size=390,800")

    wide = re.search(r'data-wide="(\d+) (\d+)"', dom)
    assert wide
    assert int(wide[2]) <= 500  # as narrow as the browser can be made
    assert int(wide[1]) <= int(wide[2])


AXE = """
addEventListener("load", async () => {
  for (const closed of document.querySelectorAll("details")) closed.open = true;
  const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"];
  const wanted = {preload: false, runOnly: rules};
  const said = (await axe.run(document, wanted)).violations.map(
    ({id, nodes}) => `${id}: ${nodes[0].html.slice(0, 200)} (${nodes.length})`);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.body.dataset.found = JSON.stringify({said, dark});
});
"""


@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("shade", ["light", "dark"])
@pytest.mark.parametrize(
    "page",
    [
        *(
            "index",
            "compare",
            "methods",
            "tasks",
            "suites/clothing_finetune",
            "suites/paper_table1",
        ),
        *("methods/gridmask", "tasks/cub_wsol", "record"),
    ],
)
def test_pages_are_accessible(site: Path, tmp_path: Path, page: str, shade: str) -> None:
    package = pytest.importorskip("axe_playwright_python", reason="pip install 'mixbench[slow]'")
    axe = (
        (Path(package.__file__).parent / "axe.min.js").read_text().replace("</script", "<\\/script")
    )
    path = min((site / "records").iterdir()) if page == "record" else site / f"{page}.html"
    options = ["--virtual-time-budget=60000", "--blink-settings=preferredColorScheme=0"]

    found, console, _ = found_by(path, axe + AXE, tmp_path, *options[: 2 if shade == "dark" else 1])

    assert found == {"said": [], "dark": shade == "dark"}
    assert console == ""
