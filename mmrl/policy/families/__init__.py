"""Model families, one file each: placement of media, positions, coordinates."""

SHARED = (
    "chat",
    "composed",
    "generic_media",
    "generic_mended",
    "generic_noise",
    "generic_probe",
    "generic_sharing",
    "generic_tensors",
    "generic_tokens",
    "generic_towers",
    "grid",
    "omni",
    "splice",
    "survey",
)
