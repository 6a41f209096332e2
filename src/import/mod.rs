//! Leaving nginx.

pub mod nginx;
