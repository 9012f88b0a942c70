//! The process-wide TLS provider.

/// Makes ring the process's TLS provider; `main` calls it before any client is made. Without it
/// rustls guesses from its own cargo features and panics as soon as a dependency adds a second one.
pub fn install() {
    // The only error is that a provider has been installed already, which is what is wanted.
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
}
