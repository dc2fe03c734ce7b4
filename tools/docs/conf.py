# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Sphinx's settings. Nothing here reaches the network, neither at the build nor in the reader's browser."""

project = "confidential.gpu"
author = "confidential.gpu contributors"
copyright = "2026, confidential.gpu contributors"  # Sphinx's name for it
language = "en"

extensions = ["myst_parser", "sphinx_antsibull_ext"]
# Anchors of headings as GitHub makes them, so that a link is good in both places.
myst_heading_anchors = 4
nitpicky = True
# Pages of ansible-core, which are elsewhere: their names stay as text.
nitpick_ignore_regex = [
    ("std:ref", "common_return_values|action_plugins|ansible_configuration_settings"),
    ("std:envvar", "ANSIBLE_.*"),
]

html_theme = "furo"
html_title = "confidential.gpu"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#3b6e00", "color-brand-content": "#2f5c00"},
    "dark_css_variables": {"color-brand-primary": "#9ad15a", "color-brand-content": "#a8dc6c"},
}
pygments_style = "friendly"
pygments_dark_style = "monokai"
