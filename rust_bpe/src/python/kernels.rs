//! What a training computes by the extension: arrays of float32, or of the bits of bfloat16, which numpy has no name for.

use std::path::PathBuf;

use numpy::{
    Element, IntoPyArray, PyArray1, PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2,
    PyReadonlyArray3, PyReadwriteArray1, PyReadwriteArray2, PyReadwriteArray3, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use crate::error::Error;
use crate::kernels::blas::Blas;
use crate::kernels::block::{self, Activation, Block};
use crate::kernels::norm::Norm;
use crate::kernels::number::Number;
use crate::kernels::{activations, are_fast, attention, logits, openmp, rows};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(has_fast_kernels, module)?)?;
    module.add_function(wrap_pyfunction!(adopt_threads, module)?)?;
    module.add_function(wrap_pyfunction!(adopt_products, module)?)?;
    module.add_function(wrap_pyfunction!(losses_of_rows, module)?)?;
    module.add_function(wrap_pyfunction!(mix_heads, module)?)?;
    module.add_function(wrap_pyfunction!(mix_heads_backward, module)?)?;
    module.add_function(wrap_pyfunction!(add_and_normalise, module)?)?;
    module.add_function(wrap_pyfunction!(normalise_backward, module)?)?;
    module.add_function(wrap_pyfunction!(squared_relu, module)?)?;
    module.add_function(wrap_pyfunction!(squared_relu_backward, module)?)?;
    module.add_function(wrap_pyfunction!(swiglu, module)?)?;
    module.add_function(wrap_pyfunction!(swiglu_backward, module)?)?;
    module.add_function(wrap_pyfunction!(run_block, module)?)?;
    module.add_function(wrap_pyfunction!(run_block_backward, module)?)
}

#[pyfunction]
fn has_fast_kernels() -> bool {
    are_fast()
}

#[pyfunction]
fn adopt_threads(library: PathBuf) -> bool {
    openmp::adopt(&library)
}

#[pyfunction]
fn adopt_products(library: PathBuf) -> bool {
    Blas::adopt(&library)
}

/// The same array of either format.
#[derive(FromPyObject)]
enum Either<F, B> {
    Float32(F),
    Bfloat16(B),
}

#[pyfunction]
fn losses_of_rows<'py>(
    py: Python<'py>,
    logits: Either<PyReadwriteArray2<'py, f32>, PyReadwriteArray2<'py, u16>>,
    n_ids: usize,
    bias: Option<PyReadonlyArray1<'py, f32>>,
    targets: PyReadonlyArray1<'py, i64>,
    gradient: bool,
    threads: usize,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let (bias, targets) = (bias.as_ref().map(PyReadonlyArray1::as_slice).transpose()?, targets.as_slice()?);
    let losses = match logits {
        Either::Float32(rows) => each_row(py, rows, (n_ids, bias), targets, gradient, threads),
        Either::Bfloat16(rows) => each_row(py, rows, (n_ids, bias), targets, gradient, threads),
    }?;
    Ok(losses.into_pyarray(py))
}

fn each_row<T: Number + Element>(
    py: Python<'_>,
    mut rows: PyReadwriteArray2<T>,
    (n_ids, bias): (usize, Option<&[f32]>),
    targets: &[i64],
    gradient: bool,
    threads: usize,
) -> PyResult<Vec<f32>> {
    let shape = logits::Shape { n_columns: rows.shape()[1], n_ids, bias };
    let rows = rows.as_slice_mut()?;
    Ok(py.detach(|| logits::each_row(rows, shape, targets, gradient, threads))?)
}

/// What a call says of the heads: of queries, of keys, the norm's name and its epsilon, the angles.
#[derive(FromPyObject)]
struct Heads<'py>(usize, usize, String, f32, Option<PyReadonlyArray1<'py, f32>>);

impl Heads<'_> {
    fn shape(&self, projected: &[usize]) -> PyResult<attention::Shape<'_>> {
        let Heads(n_heads, kv_heads, norm, eps, angles) = self;
        let norm = norm_named(norm, *eps)?;
        let angles = angles.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
        let head_size = projected[2] / n_heads.saturating_add(kv_heads.saturating_mul(2)).max(1);
        Ok(attention::Shape { length: projected[1], n_heads: *n_heads, kv_heads: *kv_heads, head_size, norm, angles })
    }
}

fn norm_named(name: &str, eps: f32) -> PyResult<Norm> {
    match name {
        "none" => Ok(Norm::None),
        "layer" => Ok(Norm::Layer(eps)),
        "rms" => Ok(Norm::Rms(eps)),
        other => Err(Error::Setting(format!("the norm {other:?} is none of none, layer, rms")).into()),
    }
}

type Array3<'py> = Either<PyReadonlyArray3<'py, f32>, PyReadonlyArray3<'py, u16>>;

#[pyfunction]
fn mix_heads<'py>(
    py: Python<'py>,
    projected: Array3<'py>,
    mixed: &Bound<'py, PyAny>,
    heads: Heads<'py>,
    threads: usize,
) -> PyResult<()> {
    match projected {
        Either::Float32(projected) => mix(py, &projected, mixed, &heads, threads),
        Either::Bfloat16(projected) => mix(py, &projected, mixed, &heads, threads),
    }
}

fn mix<T: Number + Element>(
    py: Python,
    projected: &PyReadonlyArray3<T>,
    mixed: &Bound<PyAny>,
    heads: &Heads,
    threads: usize,
) -> PyResult<()> {
    let shape = heads.shape(projected.shape())?;
    let mut mixed = mixed.cast::<PyArray3<T>>()?.try_readwrite()?;
    let (projected, mixed) = (projected.as_slice()?, mixed.as_slice_mut()?);
    Ok(py.detach(|| attention::mix(projected, mixed, shape, threads))?)
}

#[pyfunction]
fn mix_heads_backward<'py>(
    py: Python<'py>,
    projected: Array3<'py>,
    grad_mixed: &Bound<'py, PyAny>,
    grad_projected: &Bound<'py, PyAny>,
    heads: Heads<'py>,
    threads: usize,
) -> PyResult<()> {
    let grads = (grad_mixed, grad_projected);
    match projected {
        Either::Float32(projected) => mix_backward(py, &projected, grads, &heads, threads),
        Either::Bfloat16(projected) => mix_backward(py, &projected, grads, &heads, threads),
    }
}

fn mix_backward<T: Number + Element>(
    py: Python,
    projected: &PyReadonlyArray3<T>,
    (given, place): (&Bound<PyAny>, &Bound<PyAny>),
    heads: &Heads,
    threads: usize,
) -> PyResult<()> {
    let shape = heads.shape(projected.shape())?;
    let (given, mut place) =
        (given.cast::<PyArray3<T>>()?.try_readonly()?, place.cast::<PyArray3<T>>()?.try_readwrite()?);
    let (projected, given, place) = (projected.as_slice()?, given.as_slice()?, place.as_slice_mut()?);
    Ok(py.detach(|| attention::mix_backward(projected, given, place, shape, threads))?)
}

type Array2<'py> = Either<PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, u16>>;
type Array2Mut<'py> = Either<PyReadwriteArray2<'py, f32>, PyReadwriteArray2<'py, u16>>;

#[pyfunction]
#[allow(clippy::too_many_arguments)] // of Python
fn add_and_normalise<'py>(
    py: Python<'py>,
    x: Option<&Bound<'py, PyAny>>,
    sums: Array2Mut<'py>,
    normed: &Bound<'py, PyAny>,
    inverses: PyReadwriteArray1<'py, f32>,
    norm: &str,
    eps: f32,
    threads: usize,
) -> PyResult<()> {
    let norm = norm_named(norm, eps)?;
    match sums {
        Either::Float32(sums) => add_and_normalise_as(py, x, sums, normed, inverses, norm, threads),
        Either::Bfloat16(sums) => add_and_normalise_as(py, x, sums, normed, inverses, norm, threads),
    }
}

fn add_and_normalise_as<T: Number + Element>(
    py: Python,
    x: Option<&Bound<PyAny>>,
    mut sums: PyReadwriteArray2<T>,
    normed: &Bound<PyAny>,
    mut inverses: PyReadwriteArray1<f32>,
    norm: Norm,
    threads: usize,
) -> PyResult<()> {
    let x = x.map(readable::<T>).transpose()?;
    let mut normed = normed.cast::<PyArray2<T>>()?.try_readwrite()?;
    let x = x.as_ref().map(PyReadonlyArray2::as_slice).transpose()?;
    let (sums, normed, inverses) = (sums.as_slice_mut()?, normed.as_slice_mut()?, inverses.as_slice_mut()?);
    Ok(py.detach(|| rows::add_and_normalise(x, sums, normed, inverses, norm, threads))?)
}

fn readable<'py, T: Element>(array: &Bound<'py, PyAny>) -> PyResult<PyReadonlyArray2<'py, T>> {
    Ok(array.cast::<PyArray2<T>>()?.try_readonly()?)
}

#[pyfunction]
fn normalise_backward<'py>(
    py: Python<'py>,
    normed: &Bound<'py, PyAny>,
    inverses: PyReadonlyArray1<'py, f32>,
    grad_normed: &Bound<'py, PyAny>,
    grad: Array2Mut<'py>,
    norm: &str,
    threads: usize,
) -> PyResult<()> {
    // Its eps is in the inverses.
    let norm = norm_named(norm, 0.0)?;
    let given = (normed, inverses.as_slice()?, grad_normed);
    match grad {
        Either::Float32(grad) => normalise_backward_as(py, given, grad, norm, threads),
        Either::Bfloat16(grad) => normalise_backward_as(py, given, grad, norm, threads),
    }
}

fn normalise_backward_as<T: Number + Element>(
    py: Python,
    (normed, inverses, grad_normed): (&Bound<PyAny>, &[f32], &Bound<PyAny>),
    mut grad: PyReadwriteArray2<T>,
    norm: Norm,
    threads: usize,
) -> PyResult<()> {
    let (normed, grad_normed) = (readable::<T>(normed)?, readable::<T>(grad_normed)?);
    let (normed, grad_normed, grad) = (normed.as_slice()?, grad_normed.as_slice()?, grad.as_slice_mut()?);
    Ok(py.detach(|| rows::normalise_backward(normed, inverses, grad_normed, grad, norm, threads))?)
}

#[pyfunction]
fn squared_relu(py: Python<'_>, numbers: Array2Mut<'_>, threads: usize) -> PyResult<()> {
    fn each<T: Number + Element>(py: Python, mut numbers: PyReadwriteArray2<T>, threads: usize) -> PyResult<()> {
        let numbers = numbers.as_slice_mut()?;
        py.detach(|| activations::squared_relu(numbers, threads));
        Ok(())
    }
    match numbers {
        Either::Float32(numbers) => each(py, numbers, threads),
        Either::Bfloat16(numbers) => each(py, numbers, threads),
    }
}

#[pyfunction]
fn squared_relu_backward<'py>(
    py: Python<'py>,
    squared: Array2<'py>,
    grad: &Bound<'py, PyAny>,
    threads: usize,
) -> PyResult<()> {
    fn each<T: Number + Element>(
        py: Python,
        squared: &PyReadonlyArray2<T>,
        grad: &Bound<PyAny>,
        threads: usize,
    ) -> PyResult<()> {
        let mut grad = grad.cast::<PyArray2<T>>()?.try_readwrite()?;
        let (squared, grad) = (squared.as_slice()?, grad.as_slice_mut()?);
        Ok(py.detach(|| activations::squared_relu_backward(squared, grad, threads))?)
    }
    match squared {
        Either::Float32(squared) => each(py, &squared, grad, threads),
        Either::Bfloat16(squared) => each(py, &squared, grad, threads),
    }
}

#[pyfunction]
fn swiglu<'py>(py: Python<'py>, projected: &Bound<'py, PyAny>, gated: Array2Mut<'py>, threads: usize) -> PyResult<()> {
    fn each<T: Number + Element>(
        py: Python,
        projected: &Bound<PyAny>,
        mut gated: PyReadwriteArray2<T>,
        threads: usize,
    ) -> PyResult<()> {
        let projected = readable::<T>(projected)?;
        let width = gated.shape()[1];
        let (projected, gated) = (projected.as_slice()?, gated.as_slice_mut()?);
        Ok(py.detach(|| activations::swiglu(projected, gated, width, threads))?)
    }
    match gated {
        Either::Float32(gated) => each(py, projected, gated, threads),
        Either::Bfloat16(gated) => each(py, projected, gated, threads),
    }
}

#[pyfunction]
fn swiglu_backward<'py>(
    py: Python<'py>,
    projected: &Bound<'py, PyAny>,
    grad_gated: &Bound<'py, PyAny>,
    grad: Array2Mut<'py>,
    threads: usize,
) -> PyResult<()> {
    fn each<T: Number + Element>(
        py: Python,
        (projected, grad_gated): (&Bound<PyAny>, &Bound<PyAny>),
        mut grad: PyReadwriteArray2<T>,
        threads: usize,
    ) -> PyResult<()> {
        let (projected, grad_gated) = (readable::<T>(projected)?, readable::<T>(grad_gated)?);
        let width = grad_gated.shape()[1];
        let (projected, grad_gated, grad) = (projected.as_slice()?, grad_gated.as_slice()?, grad.as_slice_mut()?);
        Ok(py.detach(|| activations::swiglu_backward(projected, grad_gated, grad, width, threads))?)
    }
    let given = (projected, grad_gated);
    match grad {
        Either::Float32(grad) => each(py, given, grad, threads),
        Either::Bfloat16(grad) => each(py, given, grad, threads),
    }
}

/// What a call says of a block: of its heads, the norm's name and its epsilon, the activation's name.
#[derive(FromPyObject)]
struct Parts<'py>(Heads<'py>, String, f32, String);

type Matrices<'py> =
    (PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>);

/// A block of tensors (B, T, D).
fn block_of<'b>(parts: &'b Parts, matrices: &'b Matrices, shape: &[usize]) -> PyResult<(Blas, Block<'b>)> {
    let Parts(heads, norm, eps, activation) = parts;
    let (qkv, out, up, down) = matrices;
    let activation = match activation.as_str() {
        "relu2" => Activation::SquaredRelu,
        "swiglu" => Activation::SwiGlu,
        other => return Err(Error::Setting(format!("the activation {other:?} is none of relu2, swiglu")).into()),
    };
    let heads = heads.shape(&[shape[0], shape[1], qkv.shape()[0]])?;
    let matrices = [qkv.as_slice()?, out.as_slice()?, up.as_slice()?, down.as_slice()?];
    let blas = Blas::adopted().ok_or_else(|| Error::Setting("no library of products: see adopt_products".into()))?;
    Ok((blas, Block { width: shape[2], heads, norm: norm_named(norm, *eps)?, activation, matrices }))
}

#[pyfunction]
fn run_block<'py>(
    py: Python<'py>,
    x: PyReadonlyArray3<'py, f32>,
    matrices: Matrices<'py>,
    parts: Parts<'py>,
    mut y: PyReadwriteArray3<'py, f32>,
    mut kept: PyReadwriteArray1<'py, f32>,
    threads: usize,
) -> PyResult<usize> {
    let (blas, block) = block_of(&parts, &matrices, x.shape())?;
    let (x, y, kept) = (x.as_slice()?, y.as_slice_mut()?, kept.as_slice_mut()?);
    Ok(py.detach(|| block::forward(blas, block, x, y, kept, threads))?)
}

type MatricesMut<'py> = (
    PyReadwriteArray2<'py, f32>,
    PyReadwriteArray2<'py, f32>,
    PyReadwriteArray2<'py, f32>,
    PyReadwriteArray2<'py, f32>,
);

#[pyfunction]
#[allow(clippy::too_many_arguments)] // of Python
fn run_block_backward<'py>(
    py: Python<'py>,
    kept: PyReadonlyArray1<'py, f32>,
    at_once: usize,
    matrices: Matrices<'py>,
    parts: Parts<'py>,
    grad: PyReadonlyArray3<'py, f32>,
    mut grad_x: PyReadwriteArray3<'py, f32>,
    mut grads: MatricesMut<'py>,
    threads: usize,
) -> PyResult<()> {
    let (blas, block) = block_of(&parts, &matrices, grad.shape())?;
    let (kept, grad, grad_x) = (kept.as_slice()?, grad.as_slice()?, grad_x.as_slice_mut()?);
    let (qkv, out, up, down) = &mut grads;
    let grads = [qkv.as_slice_mut()?, out.as_slice_mut()?, up.as_slice_mut()?, down.as_slice_mut()?];
    Ok(py.detach(|| block::backward(blas, block, (kept, at_once), grad, grad_x, grads, threads))?)
}
