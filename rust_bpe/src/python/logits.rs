//! `losses_of_rows`: the loss head's rows, and whether this processor has what makes it fast.

use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArray1, PyReadwriteArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::logits::{self, Logit, Shape};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(has_fast_rows, module)?)?;
    module.add_function(wrap_pyfunction!(losses_of_rows, module)?)
}

#[pyfunction]
fn has_fast_rows() -> bool {
    logits::is_fast()
}

/// The bits of bfloat16, which numpy has no name for, or float32.
#[derive(FromPyObject)]
enum Logits<'py> {
    Bfloat16(PyReadwriteArray2<'py, u16>),
    Float32(PyReadwriteArray2<'py, f32>),
}

#[pyfunction]
fn losses_of_rows<'py>(
    py: Python<'py>,
    logits: Logits<'py>,
    n_ids: usize,
    bias: Option<PyReadonlyArray1<'py, f32>>,
    targets: PyReadonlyArray1<'py, i64>,
    gradient: bool,
    threads: usize,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (bias, targets) = (bias.as_ref().map(PyReadonlyArray1::as_slice).transpose()?, targets.as_slice()?);
    let losses = match logits {
        Logits::Bfloat16(rows) => each_row(py, rows, (n_ids, bias), targets, gradient, threads),
        Logits::Float32(rows) => each_row(py, rows, (n_ids, bias), targets, gradient, threads),
    }?;
    Ok(losses.into_pyarray(py))
}

fn each_row<T: Logit + Element>(
    py: Python<'_>,
    mut rows: PyReadwriteArray2<T>,
    (n_ids, bias): (usize, Option<&[f32]>),
    targets: &[i64],
    gradient: bool,
    threads: usize,
) -> PyResult<Vec<f32>> {
    let shape = Shape { n_columns: rows.shape()[1], n_ids, bias };
    let rows = rows.as_slice_mut()?;
    Ok(py.detach(|| logits::each_row(rows, shape, targets, gradient, threads))?)
}
