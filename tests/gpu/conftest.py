"""The servers of the system tests, for the tests on a double of a GPU."""
import importlib.util
import pathlib
import sys

_path = pathlib.Path(__file__).resolve().parents[1] / "system" / "conftest.py"
_spec = importlib.util.spec_from_file_location("system_conftest", _path)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
sys.path.append(str(_path.parent))  # for what stands beside it
start_server = _module.start_server
process_alive = _module.process_alive
wait_until = _module.wait_until
