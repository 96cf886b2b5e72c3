"""A bundle's bill of materials, in CycloneDX 1.6: models and where they came from, files, runtime, licences, energy.

The same bundle and profile give the same bytes: no time and no serial number is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..bundle import Bundle, Manifest
from ..bundle.manifest import ModelIdentity
from ..errors import EdgeError, MissingExtraError
from ..files import FileEntry
from . import SignatureError
from .signature import manifest_sha256, read_signature

if TYPE_CHECKING:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component

    from ..profile.schema import Profile, Value

_PREFIX = "edgesdk"
_MEASURED = ("prefill_energy", "decode_energy", "efficiency")


def bill_of_materials(bundle: Bundle, profile: Profile | None = None) -> str:
    """The bill's text.

    Args:
        bundle: verified.
        profile: of this bundle, for the energy that a token takes; None writes null, and why.

    Raises:
        SignatureError: the profile is of another bundle.
        MissingExtraError: the CycloneDX library is not installed.
    """
    if profile is not None and profile.bundle.digest != bundle.manifest.digest:
        raise SignatureError(
            f"the profile is of bundle {profile.bundle.digest[:16]}, and this one is {bundle.manifest.digest[:16]}",
            hint="edgesdk profile BUNDLE measures this one",
        )
    try:
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.tool import ToolRepository
        from cyclonedx.output.json import JsonV1Dot6
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "cyclonedx", "signing") from None
    main = _bundle(bundle, profile)
    metadata = BomMetaData(component=main, tools=ToolRepository(components=[_tool()]))
    bom = Bom(metadata=metadata, components=_parts(bundle.manifest))
    bom.register_dependency(main, list(bom.components))
    data = json.loads(JsonV1Dot6(bom).output_as_string())
    del data["serialNumber"], data["metadata"]["timestamp"]
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    _refuse_invalid(text)
    return text


def _refuse_invalid(text: str) -> None:
    """Have the library's own validator read what is to be written."""
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    try:
        wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    except MissingOptionalDependencyException:
        raise MissingExtraError("cyclonedx-python-lib[json-validation]", "signing") from None
    if wrong is not None:
        raise EdgeError(f"the bill of materials does not keep to CycloneDX 1.6: {wrong}")


def _bundle(bundle: Bundle, profile: Profile | None) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    manifest, signature = bundle.manifest, read_signature(bundle.folder)
    facts = {
        "digest": manifest.digest,
        "recipe": manifest.recipe.name,
        "target": manifest.target.name,
        "context": str(manifest.context),
        "signature": "null: not signed" if signature is None else f"{signature.algorithm} {signature.key}",
        **dict(_energy(profile)),
    }
    return Component(
        name=manifest.model.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=None if signature is None else str(signature.version),
        bom_ref="bundle",
        hashes=_hashes(manifest_sha256(bundle)),
        licenses=_licences(manifest.model.licence),
        properties=_properties(facts),
        components=[_file(entry, "bundle") for entry in manifest.files],
    )


def _energy(profile: Profile | None) -> Iterator[tuple[str, str]]:
    """What a token took, of each case of the profile."""
    if profile is None:
        yield "energy", "null: no profile was given"
        return
    yield "energy:device", profile.device.name
    yield "energy:scope", profile.energy_scope or "null: no sensor measured all of the device"
    for case in profile.cases:
        for name in _MEASURED:
            if (value := case.energy.values.get(name)) is not None:
                yield f"energy:{case.title}:{name}", _words(value)


def _words(value: Value) -> str:
    if value.value is None:
        return f"null: {value.reason}"
    interval = "" if value.low is None or value.high is None else f" [{value.low:.6g}, {value.high:.6g}]"
    return f"{value.value:.6g} {value.unit}{interval}"


def _parts(manifest: Manifest) -> list[Component]:
    """What a bundle was made of: models, adapters, the runtime that it needs."""
    from cyclonedx.model.component import Component, ComponentType

    parts = [_model(manifest.model, "model")]
    if manifest.draft is not None:
        parts.append(_model(manifest.draft.model, "draft"))
    for record in manifest.adapters:
        files = [_file(entry, f"adapter {record.name}") for entry in record.source]
        kind = ComponentType.DATA
        parts.append(Component(name=record.name, type=kind, bom_ref=f"adapter {record.name}", components=files))
    program = manifest.program
    parts.append(
        Component(
            name=program.runtime,
            type=ComponentType.LIBRARY,
            bom_ref="runtime",
            properties=_properties({"versions": program.runtime_versions, "converter": program.converter}),
        )
    )
    return parts


def _model(identity: ModelIdentity, reference: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=identity.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=reference,
        licenses=_licences(identity.licence),
        properties=_properties({"family": identity.family, "parameters": str(identity.parameters)}),
        components=[_file(entry, reference) for entry in identity.source],
    )


def _tool() -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(name="edgesdk", version=__version__, type=ComponentType.APPLICATION, bom_ref="edgesdk")


def _file(entry: FileEntry, owner: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=entry.path,
        type=ComponentType.FILE,
        bom_ref=f"{owner}/{entry.path}",
        hashes=_hashes(entry.sha256),
        properties=_properties({"bytes": str(entry.size)}),
    )


def _hashes(sha256: str) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]


def _licences(said: str | None) -> list[Any]:
    """A licence as SPDX writes it where it has such a name, and else as the model says it."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.spdx import fixup_id

    return [] if said is None else [LicenseFactory().make_from_string(fixup_id(said) or said)]


def _properties(facts: dict[str, str]) -> list[Property]:
    from cyclonedx.model import Property

    return [Property(name=f"{_PREFIX}:{name}", value=value) for name, value in facts.items()]
