"""Prediction on tables with ExcelFormer: classification and regression on rows of numbers and categories."""
