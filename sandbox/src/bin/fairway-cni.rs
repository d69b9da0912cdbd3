//! The CNI plug-in: a program that a container runtime starts for each pod it makes or ends. All of it is in the
//! library.

fn main() -> std::process::ExitCode {
    sandbox::run_cni()
}
