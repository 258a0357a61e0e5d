"""Checks a bill of materials: it is CycloneDX by the project's own schema, and names every crate of a program.

    check.py FILE.cdx.json Cargo.lock < CRATES

CRATES are lines "name version": those that the program is made of, as cargo tells. The bill may name a few more crates of
Cargo.lock, because cargo-cyclonedx sees the features of all crates of the workspace at once.
"""

import importlib.util
import json
import pathlib
import sys
import tomllib

import jsonschema


def schema_of(version):
    """Returns the validator for a version of CycloneDX. The schemas refer to one another by file name."""
    # The package itself is not imported, because the other libraries that it needs are not there.
    package = pathlib.Path(importlib.util.find_spec("cyclonedx").origin).parent
    folder = package / "schema" / "_res"
    schemas = {name: json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text()) for name in ("spdx", "jsf-0.82")}
    schema = json.loads((folder / f"bom-{version}.SNAPSHOT.schema.json").read_text())
    base = schema["$id"].rsplit("/", 1)[0]
    store = {f"{base}/{name}.SNAPSHOT.schema.json": content for name, content in schemas.items()}
    store |= {f"{base}/{name}.schema.json": content for name, content in schemas.items()}
    store |= {content["$id"]: content for content in [schema, *schemas.values()]}
    resolver = jsonschema.RefResolver(schema["$id"], schema, store=store)
    return jsonschema.Draft7Validator(schema, resolver=resolver)


def main():
    bom = json.loads(pathlib.Path(sys.argv[1]).read_text())
    problems = [f"schema: {error.json_path}: {error.message[:200]}" for error in schema_of(bom["specVersion"]).iter_errors(bom)]
    crates = {tuple(line.split()) for line in sys.stdin if line.strip()}
    named = [(one["name"], one["version"]) for one in [bom["metadata"]["component"], *bom["components"]]]
    problems += [f"missing: {name} {version}" for name, version in sorted(crates - set(named))]
    locked = {(one["name"], one["version"]) for one in tomllib.loads(pathlib.Path(sys.argv[2]).read_text())["package"]}
    problems += [f"not in Cargo.lock: {name} {version}" for name, version in sorted(set(named) - locked)]
    problems += [f"named twice: {name} {version}" for name, version in sorted(set(named)) if named.count((name, version)) > 1]
    foreign = [one for one in bom["components"] if "file:" not in one["bom-ref"]]
    for key in ("licenses", "hashes", "purl"):
        problems += [f"without {key}: {one['name']}" for one in foreign if not one.get(key)]
    known = {bom["metadata"]["component"]["bom-ref"], *(one["bom-ref"] for one in bom["components"])}
    edges = [ref for one in bom["dependencies"] for ref in [one["ref"], *one.get("dependsOn", [])]]
    problems += [f"a dependency that is no component: {ref}" for ref in sorted(set(edges) - known)]
    if len(crates) < 100:
        problems.append(f"only {len(crates)} crates were given, so this check has checked nothing")
    if problems:
        sys.exit("\n".join(problems))
    print(f"CycloneDX {bom['specVersion']}: {len(named)} crates, of which {len(crates)} are in the program")


main()
