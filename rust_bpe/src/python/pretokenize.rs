//! `split` and `pattern_regex`: where a pattern cuts a text, and its regular expression.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;

use crate::pretokenize::Pattern;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(pattern_regex, module)?)?;
    module.add_function(wrap_pyfunction!(split, module)?)
}

#[pyfunction]
fn split<'py>(py: Python<'py>, pattern: &str, text: &[u8]) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let ends = py.detach(|| {
        let mut ends = Vec::new();
        let mut end = 0;
        Pattern::parse(pattern)?.split(text, |pretoken| {
            end += pretoken.len() as u64;
            ends.push(end);
        })?;
        Ok::<_, crate::Error>(ends)
    })?;
    Ok(ends.into_pyarray(py))
}

#[pyfunction]
fn pattern_regex(pattern: &str) -> PyResult<Option<String>> {
    Ok(Pattern::parse(pattern)?.regex().map(str::to_owned))
}
