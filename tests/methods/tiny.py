"""Per method: settings that make it tiny, and a source it can learn from."""

TINY = {
    "deepmcat": (
        {
            "input": {"loaded_size": 32, "size": 24},
            "network": {"stages": [[2], [4], [4, 4]], "hidden": [8]},
            "clustering": {"clusters": 3, "iterations": 5},
            "training": {"batch_size": 2},
            "data.split_fractions": [0.6, 0.2, 0.2],
        },
        "phantom:cardiac_views?count=20&size=32",
    ),
    "pm_dcgan": (
        {
            "image_size": 32,
            "generator_filters": 2,
            "discriminator_filters": 2,
            "latent_size": 4,
            "fixed_samples": 2,
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:optic_disc?count=10&size=32",
    ),
    "pm_ddpm": (
        {
            "image_size": 32,
            "network": {"widths": [4, 8], "bottleneck": 8, "attention": ["down_0"]},
            "schedule.steps": 20,
            "sampling": {"sampler": "ddpm", "steps": None, "few_steps": 5, "clip_start": False},
            "optimiser.average_warmup": 0,
            "fixed_samples": 2,
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:optic_disc?count=10&size=32",
    ),
    "rhvae": (
        {
            "image_size": [32, 32],
            "latent_size": 2,
            "network": {"hidden": 8},
            "metric.centroids": 8,
            "flow": {"steps": 1, "fixed_point_iterations": 1},
            "sampling": {"steps": 3, "leapfrog_steps": 2},
            "study": {"samples": [8], "runs": 2, "epochs": 2},
            "training": {"batch_size": 2, "steps_per_epoch": None},
        },
        "phantom:shapes?count=16&size=32&classes=2",
    ),
    "multiplanar_unet": (
        {
            "planes": {"annotation": 4, "training": 8, "size": 16},
            "network": {"filters": 2, "levels": 2},
            "views": {"count": 2, "slices": 4},
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:capsules?count=10&size=16",
    ),
    "fbpaug": (
        {
            "pixel_spacing": None,
            "network": {"filters": 4, "levels": 2, "norm": "batch"},
            "agreement.pairs": "phantom:thorax_ct?count=4&size=32&kernel=pairs",
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:thorax_ct?count=10&size=32",
    ),
    "semantic_retina": (
        {
            "image_size": 32,
            "generator": {"filters": 2, "hidden_filters": 4},
            "style": {"size": 4, "filters": 2},
            "discriminator": {"filters": 4},
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:fundus?count=10&size=32&labels=vessels",
    ),
    "dr_gan": (
        {
            "image_size": 32,
            "grading": {"filters": 4, "image_size": 16},
            "generator": {"filters": 4, "residual_blocks": 1, "mapping_layers": 2, "mapping_width": 8},
            "fine": {"enabled": True, "filters": 4},
            "attention": {"chunk_rows": 10, "reductions": [2, 2, 2]},
            "discriminator": {"count": 2, "filters": 4},
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:graded_lesions?count=10&size=32",
    ),
    "tvps": (
        {
            "image_size": 32,
            "channels": 3,
            "domain": "vessel",
            "generator": {"levels": 2, "filters": 2, "hidden": 4, "components": 3, "latent": 4},
            "discriminator": {"filters": 2, "patch": 8},
            "translator": {"filters": 2, "blocks": 1, "buffer": 2, "epochs": 1, "decay_epochs": 0},
            "vessels": {"sigmas": [1.0, 2.0]},
            "classifier": {"filters": 2},
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:vessel_classes?count=10&size=32",
    ),
    "us_style": (
        {
            "image_size": 32,
            "network": {"filters": [4, 6]},
            "perceptual": {"filters": [4, 6]},
            "losses": {"perceptual": [0.0, 1.0], "style": [1.0, 1.0]},
            "training": {"batch_size": 2, "steps_per_epoch": None, "ema_decay": 0.5},
        },
        "phantom:ultrasound?count=10&size=32",
    ),
    "heatmap_landmark": (
        {
            "image_height": 32,
            "image_width": 48,
            "train_domains": "intraop+translated_sim",
            "detector": {"encoder": "plain", "widths": [2, 4, 4]},
            "heatmap.variance": 4.0,
            "decoder": {"opening_radius": 1, "max_points": 24, "flips": True},
            "translator": {"filters": 2, "blocks": 1, "epochs": 1, "steps_per_epoch": 1},
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:valve_landmarks?count=160&size=32&width=48&domains=2",
    ),
    "simcfs": (
        {
            "image_size": 32,
            "most_boxes": 12,
            "simulator": {
                "mixed": 8,
                "intra": 4,
                "single": 4,
                "canvas_width": [32, 40],
                "row_height": [0.3, 0.5],
                "rows": [1, 2],
                "gap": [1, 3],
            },
            "validation_figures": 4,
            "network": {"width": 0.06, "anchors": [[8, 8, 12, 6], [16, 16, 24, 12]], "auto_anchors": False},
            "losses.balance": [4.0, 1.0],
            "optimiser": {"warmup_epochs": 1.0, "warmup_steps": 0},
            "detection.most": 20,
            "training": {"batch_size": 2, "ema_decay": 0.5},
        },
        "phantom:figure_panels?count=40&least=12&most=20",
    ),
}
