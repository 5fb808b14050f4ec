"""Pages of results are what their JSON files say, and nothing in them is typed but the notes."""

import re
from pathlib import Path

import pytest
from report_builders import make_comparison
from study_builders import make_study

from vicinal.cli import main
from vicinal.report import Section, Table, results_pages, study_markdown

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_published_pages_say_what_their_numbers_say():
    for path, text in results_pages(RESULTS).items():
        assert path.read_text(encoding="utf-8") == text, "run: vicinal results docs/results"


def test_links_between_published_pages_lead_somewhere():
    for page in results_pages(RESULTS):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.fixture
def folder(tmp_path):
    """A folder of results with two families: studies with notes, and a comparison."""
    (tmp_path / "rates").mkdir()
    (tmp_path / "rates" / "digits.json").write_text(make_study().to_json())
    (tmp_path / "rates" / "digits.md").write_text("Why this is so.\n")
    (tmp_path / "rates" / "notes.md").write_text("# Learning rates\n\nWhat was asked.\n")
    (tmp_path / "rates" / "cost.json").write_text('{"command": "python cost.py"}')
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "digits.json").write_text(make_comparison().to_json())
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("## More\n")
    return tmp_path


def test_a_family_has_its_studies_between_the_notes(folder):
    pages = results_pages(folder)
    assert set(pages) == {folder / "rates" / "README.md", folder / "rules" / "README.md", folder / "README.md"}
    page, study = pages[folder / "rates" / "README.md"], make_study()
    places = [
        page.index(text) for text in ("# Learning rates", "What was asked.", f"## {study.title}", "Why this is so.")
    ]
    assert places == sorted(places)
    assert study_markdown(study, "digits.json") in page
    assert pages[folder / "rules" / "README.md"].count("## Learning rules on handwritten digits") == 1


def test_the_index_lists_every_claim_with_its_verdict(folder):
    index = results_pages(folder)[folder / "README.md"]
    assert "Of 4 claims in 2 studies, 1 hold, 1 hold in part, 1 do not hold, 1 are open." in index
    link = "rates/README.md#implicit-updates-do-not-need-a-small-learning-rate"
    for claim in make_study().claims:
        assert f"({link}) | {claim.paper} | **{claim.verdict}**" in index
    assert index.endswith("## More\n")


def test_a_study_in_markdown_holds_what_it_found():
    study = make_study()
    text = study_markdown(study, "digits.json")
    assert f"`{study.command}`, 5 seeds, {study.when}, jax 0.10.2, device cpu, [digits.json](digits.json)" in text
    for part in (study.summary, study.sections[0].text, *[f"- {words}" for words in study.differences]):
        assert part in text
    for claim in study.claims:
        assert f"| {claim.paper} | {claim.measured} | **{claim.verdict}** |" in text
    assert "| 0.01 | 4 | 0.912 ± 0.013 | stable | 1.500e-07 |" in text
    for table in re.split(r"\n\n", text):
        if table.startswith("|"):  # every row has as many cells as the headings
            assert len({line.count("|") for line in table.splitlines()}) == 1


def test_cells_do_not_break_a_table():
    tables = [Table("T", ["a|b", "c"], [["x\ny", "1|2"]]), Table("Folded", ["a"], [["b"]], folded=True)]
    text = study_markdown(make_study(sections=[Section("S", tables=tables)], claims=[], differences=[]))
    assert "| a\\|b | c |\n| --- | --- |\n| x<br>y | 1\\|2 |" in text
    assert "<details><summary>Folded</summary>\n\n| a |" in text


def test_the_command_writes_what_changed(folder, capsys):
    main(["results", str(folder)])
    assert capsys.readouterr().out.count("written: ") == 3
    assert all(path.read_text() == text for path, text in results_pages(folder).items())
    (folder / "notes.md").write_text("## Other\n")
    main(["results", str(folder)])
    assert capsys.readouterr().out == f"written: {folder / 'README.md'}\n"
    main(["results", str(folder)])
    assert capsys.readouterr().out == "all pages are up to date\n"


def test_a_page_written_by_hand_is_not_replaced(folder, capsys):
    (folder / "README.md").write_text("# My project\n")
    with pytest.raises(SystemExit):
        main(["results", str(folder)])
    assert f"expected no page of your own at {folder / 'README.md'}" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == "# My project\n"
    assert not (folder / "rates" / "README.md").exists()  # nothing is written before all is checked


@pytest.mark.parametrize("content", [b'{"format": "vicinal-stu', b'{"format": "vicinal-study-1"}', bytes(range(256))])
def test_a_damaged_file_is_named_and_not_left_out(folder, content):
    (folder / "rates" / "torn.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected JSON in .*torn\.json, got something else"):
        results_pages(folder)


def test_links_lead_to_folders_with_spaces_and_to_the_second_study_of_a_title(folder):
    (folder / "rates").rename(folder / "two words")
    (folder / "two words" / "other.json").write_text(make_study().to_json())
    index = results_pages(folder)[folder / "README.md"]
    link = "(two%20words/README.md#implicit-updates-do-not-need-a-small-learning-rate"
    assert index.count(f"{link})") == index.count(f"{link}-1)") == len(make_study().claims)


@pytest.mark.parametrize("name", ["empty", "none"])
def test_a_folder_without_results_is_refused(folder, capsys, name):
    with pytest.raises(SystemExit, match="2"):
        main(["results", str(folder / name)])
    assert "docs/results" in capsys.readouterr().err
