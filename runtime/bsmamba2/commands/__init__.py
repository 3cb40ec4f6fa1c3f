"""The subcommands of ``bsmamba2`` that need nothing but the runtime."""
