//! Rust's errors as the package's own: `Error::Setting` is a ConfigError, `Cancelled` a KeyboardInterrupt, the rest DataError.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use crate::error::Error;

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        let name = match error {
            Error::Cancelled => return PyKeyboardInterrupt::new_err(()),
            Error::Setting(_) => "ConfigError",
            _ => "DataError",
        };
        Python::attach(|py| {
            let class = py.import("pylm.errors").and_then(|errors| errors.getattr(name));
            class.and_then(|class| class.call1((error.to_string(),))).map_or_else(|failed| failed, PyErr::from_value)
        })
    }
}
