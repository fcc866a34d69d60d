//! stagegraph: a content-addressed build graph for live media.
//!
//! One kernel, initrd and squashfs are made once; an ISO and a netboot set are made of the very same
//! files. This crate knows what live media are; `graph` knows what runs when; `cache` keeps the bytes.
//! ARCHITECTURE.md has the map.

pub mod arch;
pub mod audit;
pub mod boot;
#[cfg(feature = "serve")]
pub mod building;
pub mod catalyst;
pub mod cli;
pub mod cmdline;
pub mod config;
pub mod difference;
pub mod extract;
pub mod finish;
pub mod formats;
pub mod hints;
pub mod http;
pub mod image;
pub mod lock;
pub mod machine;
pub mod manifest;
pub mod memory;
pub mod plan;
pub mod provenance;
pub mod publish;
#[cfg(feature = "serve")]
pub mod recipes;
pub mod report;
pub mod reproduction;
#[cfg(feature = "serve")]
pub mod serving;
pub mod signing;
pub mod spec;
pub mod squashfs;
pub mod steps;
#[cfg(feature = "remote")]
pub mod upstreams;
