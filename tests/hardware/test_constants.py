"""Constants of a machine: read from a file, strictly."""

import re

import pytest

from vicinal.hardware import Constant, Constants


def test_defaults_have_sources_but_for_three():
    found = Constants()
    assert found.unsourced == ("dac_energy", "adc_energy", "dram_energy")
    of_read = found["read_voltage"] ** 2 / found["on_resistance"] * found["read_time"]
    assert of_read == pytest.approx(10.4e-15, rel=0.01)
    of_pulse = found["write_voltage"] ** 2 / found["on_resistance"] * found["write_time"]
    assert of_pulse == pytest.approx(3.3e-12, rel=0.02)


def test_constants_of_a_file(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text(
        'read_time = 5e-9\nadc_energy = { value = 2e-15, unit = "J", source = "measured" }\n'
        "dac_energy = { value = 1e-15 }\n"
    )
    found = Constants.read(path)
    assert found.name == "chip"
    assert found.read_time == Constant(5e-9, "s", str(path))
    assert found.adc_energy == Constant(2e-15, "J", "measured")
    assert found.unsourced == ("dac_energy", "dram_energy")  # a value without a source has none
    assert found.write_time == Constants().write_time
    path.write_text('name = "ours"')
    assert Constants.read(path).name == "ours"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("read_tme = 1", "'read_tme'; did you mean 'read_time'"),
        ("read_time = ", "constants as TOML"),
        ("read_time = -1", "a constant of at least 0, finite, got -1"),
        ("read_time = nan", "a constant of at least 0, finite, got nan"),
        ("read_time = inf", "a constant of at least 0, finite, got inf"),
        ("read_time = true", "a number for a constant, got True"),
        ('read_time = "fast"', "a number for a constant, got 'fast'"),
        ("on_resistance = 0", "on_resistance above 0, got 0"),
        ('read_time = { value = 1, unit = "ns" }', "read_time in s, got ns"),
        ('read_time = { value = 1, units = "s" }', "value, unit and source of a constant, got 'units'"),
        ('read_time = { unit = "s" }', "a constant with a value, got none"),
        ("name = 3", "a name for the constants, got 3"),
        ("read_time = { value = 1, source = 3 }", "a source in words, got 3"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, sentence):
    path = tmp_path / "chip.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"expected .*{re.escape(sentence)}"):
        Constants.read(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="expected constants as TOML"):
        Constants.read(path)
    with pytest.raises(FileNotFoundError):
        Constants.read(tmp_path / "none.toml")


def test_a_plain_number_is_given():
    assert Constants(dram_energy=1e-9).dram_energy == Constant(1e-9, "J", "given")
    with pytest.raises(ValueError, match="expected read_time in s, got ns"):
        Constants(read_time=Constant(10, "ns"))
