"""The long churn: guests whose needs, lives and agent change for hours, and nothing may be lost or grow."""
