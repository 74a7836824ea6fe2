"""A Whisper that CTranslate2 runs."""

# The settings of the transformers model that an exported folder came from: CTranslate2's config.json has other ones.
SETTINGS_FILE = "whisper_config.json"
