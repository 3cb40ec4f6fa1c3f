"""The subcommands of ``bsmamba2`` that need only the runtime."""
