//! The stores that `bench` and `load` run: this engine, and the recipes it replaces. A file each; `recipe` is what `seed` and
//! `naive` share, `name` what they are called, `place` where their databases are made.

pub(crate) mod naive;
pub(crate) mod name;
pub(crate) mod place;
pub(crate) mod raw;
mod recipe;
pub(crate) mod seed;
pub(crate) mod sessile;
