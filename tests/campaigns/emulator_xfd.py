"""Adds extended feature disable (XFD) to a source tree of Bochs, for one emulated processor.

    python tests/campaigns/emulator_xfd.py BOCHS

Linux lets programs use AMX only on processors with XFD: a program's first use of a tile register
faults, and Linux then enlarges the area where it saves the program's registers. Bochs emulates AMX
but not XFD. These edits add its two registers, its bits of CPUID, and the fault.
"""

from __future__ import annotations

import sys
from pathlib import Path

# File, text to find, what to insert, and where.
EDITS = (
    (
        "cpu/cpuid.cc",
        "    leaf->eax = 0;\n    if (is_cpu_extension_supported(BX_ISA_XSAVEOPT))\n",
        "    if (is_cpu_extension_supported(BX_ISA_AMX)) leaf->eax |= 1<<4;\n",
        "after the first line",
    ),
    ("cpu/cpuid.cc", "xsave_restore[subfunction].attr", " | (subfunction == 18 ? 4 : 0)", "after"),
    ("cpu/msr.cc", '#include "msr.h"', "\nextern Bit64u xfd, xfd_error;\n", "after"),
    (
        "cpu/msr.cc",
        "  msr_desc[BX_MSR_XSS] =",
        '  msr_desc[BX_MSR_IA32_XFD] = new MSR_Descriptor("XFD", BX_ISA_AMX);\n'
        '  msr_desc[BX_MSR_IA32_XFD_ERROR] = new MSR_Descriptor("XFD_ERROR", BX_ISA_AMX);\n',
        "before",
    ),
    (
        "cpu/msr.cc",
        "    case BX_MSR_XSS:\n      val64",
        "    case BX_MSR_IA32_XFD: val64 = xfd; break;\n"
        "    case BX_MSR_IA32_XFD_ERROR: val64 = xfd_error; break;\n",
        "before",
    ),
    (
        "cpu/msr.cc",
        "    case BX_MSR_XSS: // reserved",
        "    case BX_MSR_IA32_XFD: xfd = val_64; handleAvxModeChange(); break;\n"
        "    case BX_MSR_IA32_XFD_ERROR: xfd_error = val_64; break;\n",
        "before",
    ),
    (
        "cpu/proc_ctrl.cc",
        "void BX_CPP_AttrRegparmN(1) BX_CPU_C::BxNoAMX(",
        "Bit64u xfd = 0, xfd_error = 0;\n",
        "before",
    ),
    (
        "cpu/proc_ctrl.cc",
        "(BX_XCR0_XTILECFG_MASK | BX_XCR0_XTILEDATA_MASK))\n    exception(BX_UD_EXCEPTION, 0);\n",
        "  xfd_error = xfd;\n  exception(BX_NM_EXCEPTION, 0);\n",
        "after",
    ),
    (
        "cpu/proc_ctrl.cc",
        "#if BX_SUPPORT_AMX\n",
        "  extern Bit64u xfd;\n  if (xfd)\n    clear_amx_ok();\n  else\n",
        "after",
    ),
)


def main() -> None:
    for name, found, inserted, place in EDITS:
        path = Path(sys.argv[1], name)
        text = path.read_text("latin-1")
        if found not in text:
            sys.exit(f"{path} is another version: it does not contain {found!r}")
        line, newline, rest = found.partition("\n")
        replacement = {
            "before": inserted + found,
            "after": found + inserted,
            "after the first line": line + newline + inserted + rest,
        }[place]
        path.write_text(text.replace(found, replacement, 1), "latin-1")


if __name__ == "__main__":
    main()
