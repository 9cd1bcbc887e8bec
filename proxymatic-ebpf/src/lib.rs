#![no_std]
//! The decisions of the data plane.
