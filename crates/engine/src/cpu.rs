//! What the processor can do, as far as it decides which kernels and layouts the runtime picks.

/// A short key, e.g. `x86_64+avx2+fma+avx512f+avx512vnni`. An optimised form is good only where it is the same.
pub(crate) fn key() -> String {
    let mut key = std::env::consts::ARCH.to_owned();
    #[cfg(target_arch = "x86_64")]
    for (name, present) in [
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512bw", std::arch::is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
    ] {
        if present {
            key.push('+');
            key.push_str(name);
        }
    }
    key
}
