//! What this processor has, asked once: a value of [`Avx2`], [`Avx512`] or [`Sha`] is the proof that code compiled for it may run.

/// A processor that was found to have AVX2 and the instructions that came with it.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// A processor that was found to have the byte instructions of AVX-512 (VBMI2: Ice Lake, Zen 4 and later) too.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

/// A processor that was found to have the SHA instructions.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Sha(());

#[cfg(target_arch = "x86_64")]
impl Sha {
    /// For functions of `sha,sse2,ssse3,sse4.1`.
    pub fn detect() -> Option<Self> {
        let has_all =
            is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1");
        has_all.then_some(Sha(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// For functions of `avx2,fma,bmi1,bmi2,lzcnt,popcnt`.
    pub fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        has_all.then_some(Avx2(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// For functions of what [`Avx2`] has and `avx512f,avx512bw,avx512vl,avx512vbmi2`.
    pub fn detect() -> Option<Self> {
        let has_all = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi2");
        has_all.then_some(Avx512(()))
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Avx2 {
    pub fn detect() -> Option<Self> {
        None
    }
}
