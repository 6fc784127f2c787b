//! The Python module `pylm._bpe`: converts, releases the GIL, calls, maps the error. No algorithm lives here.

mod errors;
mod interrupt;
mod job;
mod kernels;
mod learner;
mod names;
mod pretokenize;
mod tokenizer;

use pyo3::prelude::*;

#[pymodule]
fn _bpe(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__build_profile__", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    job::register(module)?;
    kernels::register(module)?;
    learner::register(module)?;
    pretokenize::register(module)?;
    tokenizer::register(module)?;
    module.delattr("__all__") // the stub lists the names
}
