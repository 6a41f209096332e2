//! What each directive of nginx means for an import: in, its name; out, whether we carry it, whether
//! it is harmless to leave out, or that its loss could open a door.
//!
//! The list of harmless ones is closed. A directive that stands in no list refuses what it stands
//! over, because nobody here can know that it restricts nothing: modules bring names of their own.

/// What to do with a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The import reads it, and says itself what it could not carry.
    Carried,
    /// Left out, for this reason.
    Harmless(&'static str),
    /// It restricts who may come in or what they may do, and has no counterpart; `off` is the value
    /// with which it does nothing.
    Restricting { off: &'static str, why: &'static str },
    /// In no list.
    Unknown,
}

/// The class of a directive inside `http`, or at the main level.
pub(super) fn class(name: &str) -> Class {
    if CARRIED.contains(&name) {
        return Class::Carried;
    }
    if let Some((_, off, why)) = RESTRICTING.iter().find(|(word, ..)| *word == name) {
        return Class::Restricting { off, why };
    }
    let in_list = |(_, names): &&(&str, &[&str])| names.contains(&name);
    if let Some((why, _)) = HARMLESS.iter().find(in_list) {
        return Class::Harmless(why);
    }
    let starts = |(prefix, _): &&(&str, &str)| name.starts_with(prefix);
    match FAMILIES.iter().find(starts) {
        Some((_, why)) if !name.ends_with("_pass") => Class::Harmless(why),
        _ => Class::Unknown,
    }
}

const CARRIED: &[&str] = &[
    "events",
    "worker_connections",
    "worker_processes",
    "http",
    "server",
    "location",
    "upstream",
    "if",
    "return",
    "rewrite",
    "set",
    "listen",
    "server_name",
    "root",
    "alias",
    "access_log",
    "ssl",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_protocols",
    "ssl_client_certificate",
    "ssl_verify_client",
    "ssl_crl",
    "ssl_reject_handshake",
    "proxy_pass",
    "proxy_set_header",
    "proxy_hide_header",
    "proxy_connect_timeout",
    "proxy_read_timeout",
    "proxy_ssl_verify",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_name",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "add_header",
    "limit_req_zone",
    "limit_req",
    "limit_req_dry_run",
    "limit_conn_zone",
    "limit_conn",
    "limit_conn_dry_run",
    "allow",
    "deny",
    "auth_basic",
    "auth_basic_user_file",
    "set_real_ip_from",
    "real_ip_header",
    "real_ip_recursive",
    "keepalive_timeout",
    "keepalive_requests",
    "client_header_timeout",
    "client_body_timeout",
    "send_timeout",
    "client_max_body_size",
    "fastcgi_pass",
    "uwsgi_pass",
    "scgi_pass",
    "grpc_pass",
    "memcached_pass",
];

/// Name, the value with which it does nothing, and what is lost.
const RESTRICTING: &[(&str, &str, &str)] = &[
    ("satisfy", "all", "the edge demands every restriction, never one of several"),
    ("auth_request", "off", "the edge asks no other server who may come in"),
    (
        "auth_jwt",
        "off",
        "write the route's `oauth` by hand: tokens have an issuer and an audience there",
    ),
    ("auth_digest", "off", "there is no digest method"),
    ("auth_ldap", "off", "there is no LDAP method"),
    ("auth_pam", "off", "there is no PAM method"),
    ("auth_gss", "off", "there is no Kerberos method"),
    ("internal", "", "nobody outside may ask for this location"),
    ("limit_except", "", "limits methods: see `methods` of a route"),
    ("valid_referers", "", "the edge looks at no Referer"),
    ("secure_link", "", "the edge checks no signed links"),
    ("secure_link_md5", "", "the edge checks no signed links"),
    ("secure_link_secret", "", "the edge checks no signed links"),
    ("ssl_ocsp", "off", "client certificates are checked against a CRL, not by OCSP"),
    ("ssl_password_file", "", "the edge takes keys without a password"),
    ("proxy_ssl_crl", "", "servers' certificates are checked against no CRL"),
    ("proxy_pass_request_headers", "on", "the edge passes request fields on"),
    ("proxy_pass_request_body", "on", "the edge passes bodies on"),
    ("modsecurity", "off", "the edge has no rules of a WAF"),
];

/// Why they are left out, and which they are.
const HARMLESS: &[(&str, &[&str])] = &[
    (
        "the service manager's matter, or nginx's own",
        &[
            "user",
            "daemon",
            "master_process",
            "pid",
            "lock_file",
            "error_log",
            "env",
            "load_module",
            "pcre_jit",
            "worker_cpu_affinity",
            "worker_priority",
            "worker_rlimit_core",
            "worker_rlimit_nofile",
            "worker_shutdown_timeout",
            "working_directory",
            "timer_resolution",
            "thread_pool",
            "debug_points",
            "use",
            "multi_accept",
            "accept_mutex",
            "accept_mutex_delay",
            "debug_connection",
            "worker_aio_requests",
        ],
    ),
    (
        "the edge has fixed bounds and needs no tuning here",
        &[
            "sendfile",
            "sendfile_max_chunk",
            "tcp_nopush",
            "tcp_nodelay",
            "aio",
            "aio_write",
            "directio",
            "directio_alignment",
            "output_buffers",
            "postpone_output",
            "read_ahead",
            "reset_timedout_connection",
            "send_lowat",
            "connection_pool_size",
            "request_pool_size",
            "client_body_buffer_size",
            "client_body_in_file_only",
            "client_body_in_single_buffer",
            "client_body_temp_path",
            "client_header_buffer_size",
            "large_client_header_buffers",
            "subrequest_output_buffer_size",
            "resolver",
            "resolver_timeout",
            "keepalive_disable",
            "keepalive_time",
            "keepalive_min_timeout",
            "max_ranges",
            "msie_padding",
            "msie_refresh",
            "chunked_transfer_encoding",
            "port_in_redirect",
            "absolute_redirect",
            "server_name_in_redirect",
            "merge_slashes",
            "ignore_invalid_headers",
            "underscores_in_headers",
            "rewrite_log",
            "uninitialized_variable_warn",
            "break",
            "limit_rate",
            "limit_rate_after",
            "limit_req_status",
            "limit_req_log_level",
            "limit_conn_status",
            "limit_conn_log_level",
            "auth_delay",
            "auth_request_set",
        ],
    ),
    ("the edge names no version of itself", &["server_tokens"]),
    (
        "the edge serves no files and changes no bodies",
        &[
            "types",
            "default_type",
            "etag",
            "if_modified_since",
            "index",
            "try_files",
            "expires",
            "disable_symlinks",
            "add_trailer",
            "override_charset",
            "source_charset",
            "stub_status",
            "empty_gif",
            "slice",
        ],
    ),
    ("the edge writes its own errors", &["error_page", "recursive_error_pages"]),
    (
        "the edge has one access log, as JSON lines",
        &["log_format", "log_not_found", "log_subrequest", "open_log_file_cache"],
    ),
    (
        "a variable of nginx; where it would be needed, that is said there",
        &["map", "geo", "split_clients", "geoip_country", "geoip_city", "geoip_org", "geoip_proxy"],
    ),
    ("the edge speaks HTTP/1.1 to servers, WebSocket too", &["proxy_http_version"]),
    ("the edge never holds answers back", &["proxy_buffering", "proxy_request_buffering"]),
    (
        "the edge passes answers on as they are and sends each request once",
        &[
            "proxy_buffers",
            "proxy_buffer_size",
            "proxy_busy_buffers_size",
            "proxy_max_temp_file_size",
            "proxy_temp_file_write_size",
            "proxy_temp_path",
            "proxy_no_cache",
            "proxy_redirect",
            "proxy_ignore_client_abort",
            "proxy_ignore_headers",
            "proxy_pass_header",
            "proxy_intercept_errors",
            "proxy_send_timeout",
            "proxy_send_lowat",
            "proxy_socket_keepalive",
            "proxy_limit_rate",
            "proxy_force_ranges",
            "proxy_bind",
        ],
    ),
    (
        "rustls chooses towards servers: TLS 1.2 and 1.3, the server's name always sent",
        &[
            "proxy_ssl_protocols",
            "proxy_ssl_ciphers",
            "proxy_ssl_session_reuse",
            "proxy_ssl_server_name",
            "proxy_ssl_verify_depth",
            "proxy_ssl_conf_command",
        ],
    ),
    (
        "rustls chooses: modern ciphers only, and resumption always",
        &[
            "ssl_ciphers",
            "ssl_prefer_server_ciphers",
            "ssl_dhparam",
            "ssl_ecdh_curve",
            "ssl_buffer_size",
            "ssl_early_data",
            "ssl_conf_command",
            "ssl_verify_depth",
            "ssl_trusted_certificate",
        ],
    ),
    ("HTTP/2 is always offered over TLS", &["http2"]),
    ("HTTP/3 is not spoken", &["http3", "quic_retry", "quic_gso", "quic_host_key"]),
];

/// Families by the start of the name; their `…_pass` is never harmless.
const FAMILIES: &[(&str, &str)] = &[
    ("gzip", "answers are passed on as the servers code them"),
    ("gunzip", "answers are passed on as the servers code them"),
    ("brotli", "answers are passed on as the servers code them"),
    ("zstd", "answers are passed on as the servers code them"),
    ("charset", "the edge serves no files and changes no bodies"),
    ("autoindex", "the edge serves no files and changes no bodies"),
    ("ssi", "the edge serves no files and changes no bodies"),
    ("sub_filter", "the edge serves no files and changes no bodies"),
    ("open_file_cache", "the edge serves no files and changes no bodies"),
    ("types_hash_", "the edge has fixed bounds and needs no tuning here"),
    ("server_names_hash_", "the edge has fixed bounds and needs no tuning here"),
    ("variables_hash_", "the edge has fixed bounds and needs no tuning here"),
    ("map_hash_", "the edge has fixed bounds and needs no tuning here"),
    ("proxy_headers_hash_", "the edge has fixed bounds and needs no tuning here"),
    ("lingering_", "the edge has fixed bounds and needs no tuning here"),
    ("http2_", "HTTP/2 is always offered over TLS"),
    ("http3_", "HTTP/3 is not spoken"),
    ("proxy_cache", "the edge caches nothing"),
    ("proxy_store", "the edge caches nothing"),
    ("proxy_cookie_", "cookies are passed on as the servers set them"),
    ("proxy_next_upstream", "another replica is tried only before a byte was sent"),
    ("ssl_session_", "rustls chooses: modern ciphers only, and resumption always"),
    ("ssl_stapling", "OCSP answers are not stapled"),
    ("fastcgi_", "the edge speaks HTTP to servers"),
    ("uwsgi_", "the edge speaks HTTP to servers"),
    ("scgi_", "the edge speaks HTTP to servers"),
    ("grpc_", "the edge speaks HTTP to servers"),
    ("memcached_", "the edge speaks HTTP to servers"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_do_not_overlap() {
        let harmless = HARMLESS.iter().flat_map(|(_, names)| *names);
        let restricting = RESTRICTING.iter().map(|(name, ..)| name);
        let mut all: Vec<&str> =
            CARRIED.iter().chain(harmless).chain(restricting).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a name stands twice");
    }

    #[test]
    fn what_is_not_known_is_not_harmless() {
        assert!(matches!(class("gzip_vary"), Class::Harmless(_)));
        assert!(matches!(class("satisfy"), Class::Restricting { off: "all", .. }));
        for name in
            ["access_by_lua_block", "js_access", "allow_methods", "auth_jwt_require", "x_pass"]
        {
            assert_eq!(class(name), Class::Unknown, "{name}");
        }
        assert_eq!(class("fastcgi_pass"), Class::Carried);
        assert_eq!(class("proxy_cache_pass"), Class::Unknown);
    }
}
