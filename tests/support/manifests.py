# SPDX-License-Identifier: MIT
"""docs/manifest.schema.json against every manifest that the command wrote in a test: collected while the tests run, validated
at the end by the jsonschema that tools.sh installs."""
import json
import os
import subprocess

from servers import CACHE

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCHEMA = os.path.join(ROOT, "docs", "manifest.schema.json")
PYTHON = os.path.join(CACHE, "jsonschema-4.26.0", "bin", "python")
VALIDATE = """
import json, sys
from jsonschema import Draft202012Validator
with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
print(json.dumps([[f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]
                  for manifest in json.load(sys.stdin)]))
"""
collected = {}


def collect(folders, since):
    """The manifests below the folders that were written since then (seconds since 1970)."""
    for base in folders:
        for folder, _, names in os.walk(base):
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith(".manifest.json") and os.path.isfile(path) and os.path.getmtime(path) >= since - 0.05:
                    with open(path, "rb") as file:
                        collected[file.read()] = path


def validate(manifests):
    """For each of the manifests (values of json.load) the list of what is wrong with it; None without jsonschema."""
    if not os.path.exists(PYTHON):
        return None
    done = subprocess.run([PYTHON, "-c", VALIDATE, SCHEMA], input=json.dumps(manifests), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def check():
    """Validates what was collected: lines about what is wrong."""
    if not collected:
        return []
    wrong, whole = [], []
    for text, path in collected.items():
        try:
            whole.append((json.loads(text.decode("utf-8")), path))
        except ValueError as error:
            wrong.append(f"{path}: {error}")
    found = validate([manifest for manifest, _ in whole])
    if found is None:
        print("manifests were not validated: jsonschema is not here, tests/support/tools.sh")
        return wrong
    return wrong + [f"{path}: {error}" for (_, path), errors in zip(whole, found) for error in errors]
