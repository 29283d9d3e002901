/*
 * The UNet as a model: a weights file or model directory, recognised, put on a backend and run on
 * batches of tiles. plugin.c exports it through the plugin ABI; the functions here are that plugin,
 * callable from tests.
 *
 * An item is one tile (C x H x W) or a request's own batch (N x C x H x W); its answer is a label
 * mask, H x W or N x H x W.
 */
#ifndef UNET_H
#define UNET_H

#include "../../backends/backend.h"
#include "model_dir.h"
#include "network.h"
#include "unetserve/model.h"

struct unet; /* an instance on a backend */

/* What a network with that description takes and gives, under the wishes of setup. 0, -EBADMSG:
 * description and network disagree; -EINVAL: a wish that the network cannot follow. error gets a
 * sentence. */
int unet_interface(const struct model_dir *dir, const struct network *network,
                   const struct unetserve_setup *setup, struct unetserve_interface *out,
                   char *error, size_t error_size);

/* The backend that setup's device and backend name, and the device's number. 0; -ENODEV: not in
 * this build or not able to run here; -EINVAL: no such. */
int unet_find_backend(const struct unetserve_setup *setup, const struct network *network,
                      const char *precision, const struct backend **out, uint32_t *device,
                      char *error, size_t error_size);

/* Put a network on its backend. Nothing of network, dir and setup is kept but setup->host. Errors
 * as for setup. */
int unet_create(const struct model_dir *dir, const struct network *network,
                const struct unetserve_setup *setup, struct unet **out,
                struct unetserve_interface *interface, char *error, size_t error_size);

/* The plugin's calls; see model.h. */
int unet_describe(const struct unetserve_setup *setup, struct unetserve_interface *interface,
                  char *error, size_t error_size);
int unet_setup(const struct unetserve_setup *setup, struct unet **out,
               struct unetserve_interface *interface, char *error, size_t error_size);
int unet_predict(struct unet *unet, struct unetserve_item *const *items, size_t count);
uint32_t unet_together(struct unet *unet, const struct unetserve_shape *shape, uint32_t waiting,
                       bool *settled);
void unet_teardown(struct unet *unet);

#endif
