"""Names of microsoft/Swin-Transformer, which timm had too before 0.9: a stage ends with its reduction."""

from convert.dialects.timm import swin_tables

NAME = "Microsoft"
SWIN, SWIN_V2 = TABLES = swin_tables("features.{2s+2}", "head")
REFUSED = ()
