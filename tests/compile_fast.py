"""Options of XLA for programs that run once."""

COMPILE_FAST = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
"""A test compiles for longer than it computes; so, it is nearly three times as fast."""
