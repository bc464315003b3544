"""The demo installs the azureml-core that the emulator is tested with."""

from runmirror.demo.azure_sdk import REQUIREMENTS
from tests.azureml_emulator.conftest import REQUIREMENTS as TESTED


def test_the_demo_pins_what_the_tests_pin() -> None:
    pins = {line.split("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()} - {""}
    assert any(pin.startswith("azureml-core==") for pin in pins)
    assert pins <= {line.split("#")[0].strip() for line in TESTED.read_text(encoding="utf-8").splitlines()}
