//! The program: hands its arguments to the library.

fn main() -> std::process::ExitCode {
    stagegraph::cli::main(std::env::args_os())
}
