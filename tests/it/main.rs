//! Everything that is tested from outside: images read back by other programs, the command line, boots.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod arches;
mod audit;
mod build;
mod catalyst;
mod code;
mod compositions;
mod faults;
mod floors;
mod foreign;
mod http;
mod kernels;
mod layouts;
mod live;
mod packages;
mod power;
mod release;
#[cfg(feature = "remote")]
mod remote;
mod reproduce;
mod roots;
mod secure;
#[cfg(feature = "serve")]
mod serve;
mod signatures;
mod signing;
mod squashfs;
mod stale;
mod statements;
mod verity;
mod world;
mod wrong;
