"""The chapters before and around backpropagation: early neurons and their rules, networks by construction. Floor 7.

Modules are imported by name, `from jaxnn.classic import perceptron`.
"""
