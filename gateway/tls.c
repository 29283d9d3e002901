#include "gateway/tls.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct tls_identity {
    unsigned holders;
    bool asks; /* for the client's certificate */
    gnutls_certificate_credentials_t credentials;
};

/* GnuTLS does not say why it could not read a file: it may be for want of memory, which passes. */
static int error_of(int failed)
{
    return failed == GNUTLS_E_MEMORY_ERROR ? -ENOMEM
           : failed == GNUTLS_E_FILE_ERROR ? -EIO
                                           : -EINVAL;
}

static int load(struct tls_identity *identity, const struct config *config, char *error,
                size_t error_size)
{
    int failed = gnutls_certificate_set_x509_key_file(
        identity->credentials, config->tls_certificate, config->tls_key, GNUTLS_X509_FMT_PEM);
    if (failed < 0) {
        snprintf(error, error_size, "%.300s with %.300s: %s", config->tls_certificate,
                 config->tls_key, gnutls_strerror(failed));
        return error_of(failed);
    }
    if (!config->tls_client_ca[0])
        return 0;
    identity->asks = true;
    int count = gnutls_certificate_set_x509_trust_file(identity->credentials, config->tls_client_ca,
                                                       GNUTLS_X509_FMT_PEM);
    if (count <= 0) {
        snprintf(error, error_size, "%.600s: %s", config->tls_client_ca,
                 count < 0 ? gnutls_strerror(count) : "there is no certificate in it");
        return error_of(count);
    }
    return 0;
}

int tls_identity_read(const struct config *config, struct tls_identity **out, char *error,
                      size_t error_size)
{
    struct tls_identity *identity = calloc(1, sizeof *identity);
    if (!identity || gnutls_certificate_allocate_credentials(&identity->credentials)) {
        free(identity);
        snprintf(error, error_size, "out of memory");
        return -ENOMEM;
    }
    identity->holders = 1;
    int failed = load(identity, config, error, error_size);
    if (failed)
        tls_identity_drop(identity);
    else
        *out = identity;
    return failed;
}

struct tls_identity *tls_identity_keep(struct tls_identity *identity)
{
    identity->holders++;
    return identity;
}

void tls_identity_drop(struct tls_identity *identity)
{
    if (!identity || --identity->holders > 0)
        return;
    gnutls_certificate_free_credentials(identity->credentials);
    free(identity);
}

int tls_identity_use(const struct tls_identity *identity, gnutls_session_t session)
{
    /* Kept by the session as they are. */
    static char purpose[] = GNUTLS_KP_TLS_WWW_CLIENT;
    static gnutls_typed_vdata_st wanted = {
        .type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)purpose, .size = 0};
    if (gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, identity->credentials))
        return -EIO;
    if (identity->asks) {
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
        gnutls_session_set_verify_cert2(session, &wanted, 1, 0);
    }
    return 0;
}
