//! The process-wide TLS provider.

/// Makes ring the TLS provider. `main` calls it before any client is built. Without it rustls guesses from
/// its cargo features, and panics once a dependency adds a second provider.
pub fn install() {
    // Fails only if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
