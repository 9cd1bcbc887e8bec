#![no_std]
//! The bytes that cross a BPF map.
