"""Power rails of Jetson modules: which of them holds all that the board spends."""

from __future__ import annotations

from dataclasses import replace

from .base import Sensor, Sum

TOTALS = ("VDD_IN", "POM_5V_IN")
AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
AGX_ORIN_TOTAL = "GPU_SOC + CPU_CV + SYS_5V0"


def with_total(rails: list[Sensor], source: str) -> list[Sensor]:
    """Mark the rail that feeds all others, or put the sum beside them that AGX Orin needs; rails overlap otherwise."""
    powers = {rail.name for rail in rails if rail.quantity == "power"}
    total = next((name for name in TOTALS if name in powers), None)
    if total:
        return [
            replace(rail, scope="board", total=True, evidence=f"{rail.evidence}; {total} feeds the whole module")
            if rail.name == total
            else rail
            for rail in rails
        ]
    if not powers.issuperset(AGX_ORIN):
        return rails
    evidence = "AGX Orin has no rail of all; these three do not overlap; the carrier board is not measured"
    return [*rails, Sensor(AGX_ORIN_TOTAL, "power", "board", source, Sum(AGX_ORIN), evidence, total=True)]
