"""The suite inside of trainers that people use; each module imports the library that it is named after."""
