"""Reads Terraform files and says where they differ from the schema of the azurerm provider.

The schema is that which HashiCorp generated the provider's TypeScript package from (npm: @cdktf/provider-azurerm): the
provider itself cannot be had from a package registry. Arguments: the package's folder `lib`, Terraform files. Output: a
JSON object, the resources looked at and the problems as text.
"""

import json
import re
import sys
from pathlib import Path

import hcl2

# What every resource may have beside its own.
META = {"count", "depends_on", "for_each", "lifecycle", "provider", "timeouts"}
REFERENCE = re.compile(r"\b(data\.)?azurerm_(\w+)\.(\w+)(?:\[0\])?\.(\w+)")


class Provider:
    """Arguments and attributes by resource, read when they are asked for."""

    def __init__(self, lib):
        self._lib = Path(lib)

    def _text(self, resource):
        file = self._lib / resource.replace("_", "-") / "index.d.ts"
        return file.read_text(encoding="utf-8") if file.exists() else None

    def shapes(self, resource):
        """Interfaces: name -> {argument: (needed, name of the interface below or None)}; and that of the resource."""
        text = self._text(resource)
        if text is None:
            return None, None
        shapes = {}
        for name, body in re.findall(r"^export interface (\w+)[^{]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            shapes[name] = {}
            for link, optional, of in re.findall(
                r"\{@link \S+#\w+ \w+#(\w+)\}\s*\*/\s*readonly \w+(\??): ([^;]+);", body
            ):
                below = re.match(r"[A-Z]\w+", of)
                shapes[name][link] = (not optional, below and below[0])
        top = "".join(part.capitalize() for part in resource.split("_")) + "Config"
        return shapes, next(name for name in shapes if name.lower() == top.lower())

    def attributes(self, resource):
        text = self._text(resource) or ""
        return {
            re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), name) for name in re.findall(r"get (\w+)\(", text)
        }


def blocks(body):
    """Arguments and blocks of a body, those that are made in a loop among them."""
    for name, value in body.items():
        if name == "__is_block__":
            continue
        if name == "dynamic":
            for loop in value:
                for of, made in loop.items():
                    if of != "__is_block__":
                        yield of.strip('"'), made["content"]
        else:
            yield name, value


def look(body, name, shapes, path, problems):
    known, given = shapes[name], set()
    for argument, value in blocks(body):
        given.add(argument)
        if argument in META:
            continue
        if argument not in known:
            problems.append(f"{path}.{argument} is unknown; known are {', '.join(sorted(known))}")
            continue
        below = known[argument][1]
        is_block = isinstance(value, list) and value and isinstance(value[0], dict) and "__is_block__" in value[0]
        if is_block and below in shapes:
            for each in value:
                look(each, below, shapes, f"{path}.{argument}", problems)
    problems += [
        f"{path} lacks {argument}" for argument, (needed, _) in known.items() if needed and argument not in given
    ]


def main(lib, *files):
    provider, looked_at, problems = Provider(lib), [], []
    for file in files:
        text = Path(file).read_text(encoding="utf-8")
        for resource in hcl2.loads(text).get("resource", ()):
            for quoted, named in resource.items():
                kind = quoted.strip('"')
                if not kind.startswith("azurerm_"):
                    continue
                shapes, top = provider.shapes(kind.removeprefix("azurerm_"))
                for name, body in named.items():
                    if name == "__is_block__":
                        continue
                    looked_at.append(kind)
                    if shapes is None:
                        problems.append(f"{kind} is unknown")
                    else:
                        look(body, top, shapes, f"{kind}.{name.strip(chr(34))}", problems)
        for data, kind, name, attribute in REFERENCE.findall(text):
            if attribute not in provider.attributes(f"data_azurerm_{kind}" if data else kind):
                problems.append(f"{kind}.{name} has no {attribute}")
    print(json.dumps({"looked_at": looked_at, "problems": problems}))


if __name__ == "__main__":
    main(*sys.argv[1:])
