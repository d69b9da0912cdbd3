//! The pause program as a file in memory: the build script made it, this embeds it. Nothing has to be
//! installed for a sandbox to start.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{MemfdFlags, memfd_create};

/// The program, a static ELF file.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The program as an open file that can be executed through `/proc/self/fd`.
pub(crate) fn open() -> io::Result<File> {
    // MFD_EXEC (6.3) is not asked for: older kernels refuse it, and without it the file is executable too.
    let mut file = File::from(memfd_create("pause", MemfdFlags::CLOEXEC)?);
    file.write_all(PROGRAM)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_small_static_file() {
        assert!(PROGRAM.starts_with(b"\x7fELF"));
        assert!(PROGRAM.len() < 16 * 1024, "{} bytes", PROGRAM.len());
        assert!(!PROGRAM.windows(4).any(|word| word == b"ld-l"), "it names a dynamic loader");
    }
}
